"""The report's style sheet: one column on a phone, several on a desk; light or dark."""

STYLE = """
:root{color-scheme:light dark;--paper:#fbfaf7;--card:#fff;--ink:#1d2126;--soft:#5b6470;
--line:#e3e0d8;--one:#2457a6;--two:#b4540a;--three:#3c7a3f;--good:#2c7a3a;--doubt:#8a5b00;
--bad:#b3261e;--goodbg:#e6f3e6;--doubtbg:#fbf0d6;--badbg:#fbe5e2}
@media (prefers-color-scheme:dark){:root{--paper:#14171b;--card:#1c2026;--ink:#e6e4df;
--soft:#9aa3ae;--line:#30363e;--one:#7fb0f5;--two:#f0a35e;--three:#86c98a;--good:#86c98a;
--doubt:#e6b95c;--bad:#f28b82;--goodbg:#1d3322;--doubtbg:#3a2f14;--badbg:#41211f}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:76rem;margin:0 auto;padding:1.5rem 1rem 3rem}
h1{font-size:1.7rem;line-height:1.2;margin:.1rem 0 .4rem;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:2.4rem 0 .8rem}
h3{font-size:.95rem;margin:0 0 .5rem}
p{margin:.4rem 0}
.over{color:var(--soft);font-size:.85rem;margin:0}
.assurance{font-size:1.05rem;margin:.5rem 0 0}
.chip{display:inline-block;border-radius:1rem;padding:.05rem .7rem;font-size:.85rem;
font-weight:600;vertical-align:.1rem}
.chip.good{background:var(--goodbg);color:var(--good)}
.chip.doubt{background:var(--doubtbg);color:var(--doubt)}
.chip.bad{background:var(--badbg);color:var(--bad)}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.6rem,1fr));gap:.6rem;
margin:1.4rem 0 0}
.tile,.card,.chart{background:var(--card);border:1px solid var(--line);border-radius:.6rem}
.tile{padding:.6rem .8rem}
.tile b{display:block;font-size:1.35rem;font-weight:600;line-height:1.25;
font-variant-numeric:tabular-nums}
.tile span{color:var(--soft);font-size:.82rem}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,21rem),1fr));gap:.8rem}
.chart{margin:0;padding:.7rem .8rem .5rem;min-width:0}
figcaption{display:flex;flex-wrap:wrap;gap:.1rem 1rem;justify-content:space-between;
font-size:.9rem;margin-bottom:.3rem}
.legend{color:var(--soft);display:flex;gap:.9rem;flex-wrap:wrap}
.legend b{color:var(--ink);font-weight:600;font-variant-numeric:tabular-nums}
.key{display:inline-block;width:.8rem;height:.2rem;border-radius:1px;vertical-align:.22rem;
margin-right:.3rem}
.key.tone1,.fill.tone1{background:var(--one)}.key.tone2{background:var(--two)}
.key.tone3{background:var(--three)}
svg{display:block;width:100%;height:auto;overflow:visible}
.grid{stroke:var(--line)}.axis{stroke:var(--soft)}
.tick{font-size:11.5px;fill:var(--soft);font-variant-numeric:tabular-nums}
.end{text-anchor:end}.middle{text-anchor:middle}
.curve{fill:none;stroke-width:1.6;stroke-linejoin:round}
.curve.tone1{stroke:var(--one)}.curve.tone2{stroke:var(--two)}.curve.tone3{stroke:var(--three)}
.dot.tone1{fill:var(--one)}.dot.tone2{fill:var(--two)}.dot.tone3{fill:var(--three)}
.resumed{stroke:var(--soft);stroke-dasharray:3 3}
.note,.empty{color:var(--soft);font-size:.85rem}
.empty{padding:2.5rem 0;text-align:center}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,24rem),1fr));gap:.8rem}
.card{padding:.9rem 1rem;min-width:0}
.card ul{margin:.2rem 0;padding-left:1.1rem}.card li{margin:.25rem 0}
dl{display:grid;grid-template-columns:minmax(6.5rem,max-content) minmax(0,1fr);
gap:.25rem 1rem;margin:0;font-size:.9rem}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;font-size:.84rem}
code{overflow-wrap:anywhere}
pre{background:var(--card);border:1px solid var(--line);border-radius:.6rem;padding:.7rem .9rem;
overflow-x:auto;margin:.6rem 0}
table{border-collapse:collapse;width:100%;font-size:.88rem}
.wide{overflow-x:auto}
th{text-align:left;font-weight:600;color:var(--soft)}
th,td{padding:.3rem .8rem .3rem 0;border-bottom:1px solid var(--line);vertical-align:top}
td.number{font-variant-numeric:tabular-nums}
.stat{display:grid;grid-template-columns:6.5rem 1fr 6.5rem;gap:.8rem;align-items:center;
font-size:.88rem;margin:.35rem 0}
.stat>span:last-child{font-variant-numeric:tabular-nums}
.track{position:relative;height:.6rem;background:var(--line);border-radius:.3rem;display:block}
.fill{position:absolute;left:0;top:0;bottom:0;border-radius:.3rem}
.fill.good{background:var(--good)}.fill.bad{background:var(--bad)}
.limit{position:absolute;left:66.67%;top:-.25rem;bottom:-.25rem;width:2px;background:var(--ink)}
details{margin:.6rem 0}summary{cursor:pointer;color:var(--soft);font-size:.9rem}
footer{margin-top:2.5rem;color:var(--soft);font-size:.85rem}
@media (max-width:30rem){.stat{grid-template-columns:5rem 1fr 3.6rem;gap:.5rem}
.tick{font-size:12.5px}}
@media print{.card,.chart,.tile{break-inside:avoid}}
"""
