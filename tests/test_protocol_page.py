"""docs/protocol.md against the code: every field, code, check and vector that it lists."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar, get_origin

import pytest

from attest import trust
from attest.check import CHECKS
from attest.contract import Contract
from attest.level import Level
from attest.log.admission import REFUSALS
from attest.log.register import SIGNING_ROLES
from attest.schema import Elsewhere, json_name
from attest.statements import Row
from attest.statements.encoding import Statement
from attest.verdict import Verdict
from launch.errors import ExitCode

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "protocol.md").read_text("utf-8")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
# A comment of a program is no heading.
OUTLINE = FENCE.sub(lambda block: block[0].replace("\n#", "\n #"), TEXT)
KINDS: tuple[Any, ...] = Statement.__args__  # type: ignore[attr-defined]


def section(title: str) -> str:
    """Return what stands under a heading, up to the next one of any level."""
    pattern = rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)"
    (found,) = re.findall(pattern, OUTLINE, re.MULTILINE | re.DOTALL)
    return found


def first_column(text: str) -> list[str]:
    """Return the code spans in the first column of a section's tables."""
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def written_fields(record: type) -> set[str]:
    """Return the JSON names of a record's fields that stand in its own object."""
    names: set[str] = set()
    for name, annotation in record.__annotations__.items():
        notes = getattr(annotation, "__metadata__", ())
        if get_origin(annotation) is not ClassVar and not any(
            isinstance(note, Elsewhere) for note in notes
        ):
            names.add(json_name(name))
    return names


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.KIND)
def test_the_table_of_a_statement_has_its_fields(kind: Any) -> None:
    assert sorted(first_column(section(f"`{kind.KIND}`"))) == sorted(written_fields(kind))


def test_the_tables_of_contract_and_row_have_their_fields() -> None:
    assert sorted(first_column(section("Contract"))) == sorted(written_fields(Contract))
    assert sorted(first_column(section("Rows and the line"))) == sorted(written_fields(Row))


def test_every_refusal_of_the_log_is_listed() -> None:
    assert first_column(section("Admission")) == list(REFUSALS)


def test_every_kind_has_its_signer() -> None:
    line = section("Admission").partition("Who signs: ")[2]
    for kind in SIGNING_ROLES:
        assert f"`{kind.KIND}`" in line


def test_every_check_of_the_client_is_listed_in_its_own_words() -> None:
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", section("Client and verdict"), re.MULTILINE)
    listed = {name: words for name, words in rows if name in CHECKS}
    assert listed == CHECKS
    assert [name for name, _ in rows if name not in CHECKS] == [level.text for level in Level]


def test_the_fields_of_the_verdict_are_listed() -> None:
    text = section("Client and verdict").partition("`--json` prints")[2]
    named = re.findall(r"`(\w+)`", text)
    source = (ROOT / "attest" / "verdict.py").read_text("utf-8")
    body = source.partition("def to_json")[2].partition("def _facts")[0]
    assert named == [*re.findall(r'^            "(\w+)":', body, re.MULTILINE), "milliseconds"]
    assert Verdict.to_json.__doc__


def test_the_policy_names_its_caps_and_roles() -> None:
    text = section("Policy")
    for name in (*trust.CAP_FIELDS, *(role.value for role in trust.KEY_ROLES)):
        assert f"`{name}`" in text


def test_every_exit_code_is_listed() -> None:
    codes = re.findall(r"^\| (\d+) \|", section("Exit codes"), re.MULTILINE)
    assert codes == [str(int(code)) for code in ExitCode]


def test_the_vectors_are_what_the_program_prints() -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    (printed,) = re.findall(r"^```text\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stderr, done.stdout) == ("", printed)


def test_the_vectors_are_those_of_the_named_tests() -> None:
    printed = section("Vectors")
    for name, golden in {
        "anh_jax/data/test_order.py": "7, 6, 4, 5, 0, 3, 1, 8, 2, 9",
        "anh_jax/data/test_manifest.py": "64d184835de22ca2e70575bbc598259011a719364d06925ffcb449a5",
        "attest/statements/test_row.py": "55733bf4a9a76e6972c2d58b8ca2247e5f75f330809804763222",
        "attest/test_sample.py": "4852, 5677, 6704, 2228, 8997, 7609",
    }.items():
        assert golden in (ROOT / "tests" / name).read_text("utf-8")
        assert golden.replace(",", "") in printed
    for named in re.findall(r"`(tests/[^`:]+)", printed):
        assert (ROOT / named).exists(), named
