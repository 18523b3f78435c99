"""The page of a report in a real browser, where there is one: it is drawn, and fits a phone."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from helpers import recorded
from helpers.reports import results_of, write_told

from llm_catalyst.report.write import PAGE, build_files

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PROBE = "<script>onload = () => setTimeout(() => { const d = document.querySelector('iframe').contentDocument; "
PROBE += (
    "document.title = `${d.documentElement.scrollWidth} ${d.querySelectorAll('svg text').length}`; }, 300)</script>"
)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium or google-chrome is installed")
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_drawn_and_no_wider_than_the_window(tmp_path: Path, width: int) -> None:
    folder = write_told(tmp_path / "told", ["plain", "mentor"], records=recorded.run_records(extra="x" * 300))
    (tmp_path / PAGE).write_bytes(build_files([results_of(folder)])[PAGE])
    frame = f'<iframe src="{PAGE}" style="width:{width}px;height:800px;border:0"></iframe>'
    (tmp_path / "frame.html").write_text(PROBE + frame)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000"]
    done = subprocess.run(
        [str(CHROMIUM), *options, (tmp_path / "frame.html").as_uri()], capture_output=True, text=True, timeout=120
    )
    found = re.search(r"<title>(\d+) (\d+)</title>", done.stdout)
    assert found, done.stderr
    assert int(found[1]) <= width
    assert int(found[2]) > 50
