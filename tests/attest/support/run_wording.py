"""What the records of an honest run say, field by field."""

import hashlib
from collections.abc import Iterable

from run_cast import OPERATORS, WEIGHTS, digest, key

from attest.contract import (
    Contract,
    Data,
    Holdout,
    Init,
    Numerics,
    Optimizer,
    Programs,
    PropertyRule,
    Retention,
)
from attest.numerics_class import CLASSES
from attest.statements import (
    Attempt,
    Audit,
    Counts,
    ExportedFile,
    Final,
    Genesis,
    Line,
    Mesh,
    Property,
    Row,
    Scalars,
    Segment,
    Source,
    Threshold,
    Worst,
)


def contract(steps: int) -> Contract:
    return Contract(
        version=1,
        steps=steps,
        batch_size=64,
        seed=7,
        seed_rule="fixed",
        programs=Programs(*(digest(n) for n in ("init", "gradient", "scalars", "update", "eval"))),
        constants=digest("constants"),
        rules=digest("rules"),
        config=digest("config"),
        data=Data(digest("data"), 1500, "feistel-sha256/v1", Holdout(digest("holdout"), 297)),
        init=Init("program"),
        optimizer=Optimizer("elementwise", "adamw"),
        numerics=Numerics.of(CLASSES["f32"]),
        properties=(PropertyRule("accuracy", digest("eval"), digest("holdout"), 9, 10, 3),),
        retention=Retention("P90D", ("lab",), "0", "P7D"),
    )


def segment(run: str, attempt: str, first: int, last: int) -> Segment:
    return Segment(
        state_root=digest(f"state {last}"),
        run=run,
        attempt=attempt,
        first=first,
        last=last,
        prev=run if first == 1 else digest(f"row {first - 1}"),
        last_row=digest(f"row {last}"),
        rows_root=digest(f"rows {first} to {last}"),
        seen=None,
    )


def genesis(contract_id: str) -> Genesis:
    """Return the genesis of a run under a contract."""
    return Genesis(
        state_root=digest("state 0"),
        contract=contract_id,
        plan=digest("plan"),
        run_key=key("lab").public.hex(),
        trainer="lab",
        execution_class={
            "backend": "cpu",
            "device": "x86_64",
            "isa": "avx2,fma",
            "threads": 8,
            "driver": "none",
            "jaxlib": "0.10.2",
            "autotune": digest("autotune"),
        },
        environment={
            "python": "3.11.7",
            "jax": "0.10.2",
            "jaxlib": "0.10.2",
            "flax": "0.12.8",
            "numpy": "2.3.4",
            "xla_flags": "--xla_cpu_max_isa=AVX2",
            "host": "Linux x86_64",
            "libraries": digest("libraries"),
        },
        digest_policy="every 1",
        alg="blake3",
        init="exact",
        seed="fixed",
    )


def attempt(run: str, number: int) -> Attempt:
    """Return an attempt that starts from genesis."""
    return Attempt(
        resumed_from=run,
        run=run,
        number=number,
        step=0,
        worker_keys=(key(f"worker-{number}").public.hex(),),
        mesh=Mesh(1, 1, 1),
        processes=1,
        environment={"hostname": "node-7", "jax": "0.10.2", "devices": "1"},
        reason="start" if number == 1 else "resume",
    )


def row(run: str, step: int) -> Row:
    """Return the row of a step."""
    return Row(
        run=run,
        step=step,
        prev=run if step == 1 else digest(f"row {step - 1}"),
        gradient_root=digest(f"gradient {step}"),
        state_root=digest(f"state {step}"),
        batch_root=digest(f"batch {step}"),
        scalars=Scalars("0x1.0000000000000p+0", 1, "0x1.0000000000000p+6"),
        loss="0x1.0000000000000p-1",
        bound=None,
    )


def final(run: str, steps: int, attempts: int) -> Final:
    """Return the final record of a run."""
    return Final(
        state_root=digest("last state"),
        files=(ExportedFile("model.safetensors", hashlib.sha256(WEIGHTS).hexdigest()),),
        run=run,
        line=Line(steps + 1, digest("line")),
        steps=steps,
        attempts=attempts,
        metrics={"accuracy": "0x1.e000000000000p-1", "loss": "0x1.8000000000000p-3"},
    )


def audit(who: str, run: str, final: str, sources: Iterable[Source], k: int, count: int) -> Audit:
    """Return an audit in which all of `count` steps passed."""
    return Audit(
        final=final,
        run=run,
        auditor=OPERATORS.get(who, who),
        sample="intents" if sources else "self",
        sources=tuple(sources),
        k=k,
        steps=count,
        method="exact",
        results_root=digest("results"),
        counts=Counts(count, 0, 0, 0),
        worst=Worst(*[None] * 6),
        init="pass",
        export="pass",
        line="pass",
        walk="pass",
        drift="no null known",
        gradient_roots=digest("gradients"),
        environment={
            "backend": "gpu",
            "device": "NVIDIA H100",
            "jax": "0.12.0.1",
            "cuda": "13.0",
            "driver": "580.65",
            "python": "3.12.3",
        },
    )


def claim(who: str, told: Final, final: str) -> Property:
    """Return a property of the run of a final record, met."""
    return Property(
        state_root=told.state_root,
        run=told.run,
        final=final,
        auditor=OPERATORS.get(who, who),
        name="accuracy",
        program=digest("eval"),
        data_root=digest("holdout"),
        correct=280,
        total=297,
        threshold=Threshold(9, 10),
        margin=3,
        verdict="met",
    )
