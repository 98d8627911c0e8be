import re
import subprocess
import sys
from pathlib import Path

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "digest_bytes.md"


def test_worked_example_prints_what_the_document_says():
    text = DOCUMENT.read_text()
    programs = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (printed,) = re.findall(r"```text\n(.*?)```", text, re.DOTALL)
    by_hand, by_project = (
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True
        ).stdout
        for program in programs
    )
    assert by_hand == printed
    assert by_project == printed.splitlines(keepends=True)[-1]
