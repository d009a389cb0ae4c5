"""The annotation widget in a real browser: JupyterLab in headless Chromium, judged by keyboard, reloaded, run again.

Skipped where Playwright or Chromium is missing; CUADFT_BROWSER=required makes that a failure.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

from cuadft.feedback.store import Store

PATIENCE = 60_000  # milliseconds: a busy machine is no fault of the widget
CELL = """import json
from cuadft.feedback.store import Store
from cuadft.feedback.widget import Annotate
Annotate(json.load(open("tasks.json")), Store("feedback.sqlite"), open("annotator").read())"""
WIDGET = ".cuadft-annotate"
IDLE = "text=Python 3 (ipykernel) | Idle"
IMAGE = "<img src=x onerror=\"document.title='hacked'\">"
TEXT = f"Signed \U0001d4d0\U0001d4d1 by <b>Acme</b> {IMAGE} under the law of Ohio, and no \U0001d4d0 other law."
LAW = TEXT.index("the law of Ohio"), TEXT.index(", and no")


MIDDLE = """word => {
    const range = document.createRange(), text = [...document.querySelectorAll(".passages span")].at(-1).firstChild;
    range.setStart(text, text.data.indexOf(word));
    range.setEnd(text, range.startOffset + word.length);
    const box = range.getBoundingClientRect();
    return [box.x + box.width / 2, box.y + box.height / 2];
}"""  # of a word in the last piece of the passages: x and y in the window


def tasks():
    made = []
    for number in range(6):
        made.append(
            {
                "id": f"q{number}",
                "contract": "Acme <i>Supply</i>",
                "question": f"Question number {number}?",
                "passages": [{"start": 100, "end": 100 + len(TEXT), "text": TEXT}],
                "answer_a": f"Ohio {number}",
                "answer_b": f"Texas {number}",
                "system_a": "one",
                "system_b": "two",
                "prompt": None,
                "why": "",
                "spans_a": [[100 + LAW[0], 100 + LAW[1]]],
                "spans_b": [[100 + LAW[1] - 4, 100 + LAW[1] + 5]],
                "priority": 1.0,
            }
        )
    return made


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """Start JupyterLab in a folder of its own, with settings of its own; return the folder and the address."""
    folder, home = tmp_path_factory.mktemp("lab"), tmp_path_factory.mktemp("home")
    settings = home / "settings/@jupyterlab/apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "IPYTHONDIR": "ipython",
    }
    env = os.environ | {name: str(home / part) for name, part in folders.items()}
    env["PYTHONPATH"] = str(Path(__file__).parents[2])
    options = {
        "token": "test",
        "root_dir": folder,
        "ip": "127.0.0.1",
        "port": address.rsplit(":")[-1],
        "port_retries": 0,
    }
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        "--allow-root",
        "--no-browser",
        *(f"--ServerApp.{name}={value}" for name, value in options.items()),
    ]
    with open(home / "lab.log", "w") as log:
        server = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
    try:
        _wait_for(f"{address}/api?token=test", server, home / "lab.log")
        yield folder, address
    finally:
        server.terminate()
        server.wait(20)


def _wait_for(url, server, log):
    for _ in range(PATIENCE // 200):
        try:
            return urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            assert server.poll() is None, f"JupyterLab has ended: {log.read_text()[-800:]}"
            time.sleep(0.2)
    pytest.fail(f"JupyterLab does not answer: {log.read_text()[-800:]}")


@pytest.fixture(scope="module")
def notebook(chromium, lab):
    """Open a notebook of two cells; return the page and the notebook's folder."""
    folder, address = lab
    (folder / "tasks.json").write_text(json.dumps(tasks()))
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in (CELL, "import time; time.sleep(6)")])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(made, folder / "judge.ipynb")
    page = chromium.new_page(viewport={"width": 1200, "height": 1000})
    page.set_default_timeout(PATIENCE)
    visit(page, f"{address}/lab/tree/judge.ipynb?token=test&reset")
    yield page, folder
    page.close()


def visit(page, address):
    """Open a notebook and wait for its kernel; open it anew where JupyterLab did not come to talk to the kernel."""
    from playwright.sync_api import TimeoutError

    for left in (2, 1, 0):
        page.goto(address)
        try:
            return page.wait_for_selector(IDLE)
        except TimeoutError:
            if not left:
                raise


def begin(notebook, annotator=""):
    """Run the notebook with an empty store."""
    page, folder = notebook
    (folder / "annotator").write_text(annotator)
    (folder / "feedback.sqlite").unlink(missing_ok=True)
    run(page)
    shows(page, "0 done · 6 left")
    return page, folder


def run(page):
    """Run the first cell by keyboard, then press Tab until its widget has the keys."""
    page.wait_for_selector(IDLE)
    editor = page.locator(".jp-Notebook .jp-InputArea-editor").first
    editor.click()
    page.evaluate(f"document.querySelector('{WIDGET}')?.classList.add('former')")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(f"{WIDGET}:not(.former) header progress")
    focus(page)


def focus(page):
    for _ in range(30):
        if page.evaluate(f"document.activeElement.closest('{WIDGET}') !== null"):
            return
        page.keyboard.press("Tab")
    pytest.fail("Tab does not reach the widget")


def shows(page, text):
    page.wait_for_function(
        "([css, text]) => document.querySelector(css)?.textContent.includes(text)", arg=[WIDGET, text]
    )


def cells(page):
    kinds = ".jp-Notebook .jp-Cell"
    return page.eval_on_selector_all(kinds, "found => found.map(c => [...c.classList].find(n => /jp-.+Cell$/.test(n)))")


def answers(page):
    return page.locator(f"{WIDGET} .answer").all_text_contents()


def test_five_pairs_by_keyboard_then_reload_and_run_again(notebook):
    page, folder = begin(notebook)
    before = cells(page)
    page.keyboard.type("anna")
    page.keyboard.press("Enter")
    shows(page, "Question number 0?")
    left, right = answers(page)
    page.keyboard.press("a")
    shows(page, "Question number 1?")
    second = answers(page)[1]
    page.keyboard.press("b")
    shows(page, "Question number 2?")
    page.keyboard.press("c")
    page.keyboard.type("at a sum: 2 abt")  # letters that are keys elsewhere
    page.keyboard.press("Enter")
    page.keyboard.press("w")
    shows(page, "Question number 3?")
    page.keyboard.press("e")
    page.keyboard.press("2")
    page.keyboard.press("End")
    page.keyboard.type(" it is")
    third = answers(page)[1] + " it is"
    page.keyboard.press("Enter")
    shows(page, "Question number 4?")
    page.keyboard.press("t")
    shows(page, "Question number 5?")
    shows(page, "5 done · 1 left")

    rows = Store(folder / "feedback.sqlite").judgements()
    chosen = [row.get(f"answer_{row['verdict']}", row["verdict"]) for row in rows]
    assert chosen == [left, second, "both_wrong", rows[3]["answer_" + rows[3]["verdict"]], "tie"]
    assert {left, right} == {"Ohio 0", "Texas 0"}
    assert [row["edited"] for row in rows] == [None, None, None, third, None]
    assert [row["comment"] for row in rows] == ["", "", "at a sum: 2 abt", "", ""]
    assert all(row["annotator"] == "anna" and 0 < row["seconds"] < 120 for row in rows)
    for key in ("x", "d", "d", "Shift+Enter"):  # to the notebook: cut the cell, delete it, run it
        page.keyboard.press(key)
    assert cells(page) == before  # no key was a command of the notebook
    shows(page, "5 done · 1 left")

    page.keyboard.press("Control+s")  # saving stays the notebook's
    page.wait_for_function("!document.querySelector('.jp-mod-dirty')")
    page.reload()
    shows(page, "Question number 5?")  # the kernel has kept the widget
    run(page)
    page.keyboard.type("anna")
    page.keyboard.press("Enter")
    shows(page, "5 done · 1 left")
    shows(page, "Question number 5?")
    page.keyboard.press("u")
    shows(page, "Question number 4?")
    page.keyboard.press("s")
    shows(page, "5 done (1 skipped) · 1 left")
    assert [row["verdict"] for row in Store(folder / "feedback.sqlite").judgements()][-1] == "skip"


def test_notebook_06_asks_people_and_keeps_their_verdicts(chromium, lab, smoke):
    folder, address = lab
    for part in ("notebooks", "params"):  # a project of its own, so that nothing here is written to
        shutil.copytree(Path(__file__).parents[2] / part, folder / part)
    shutil.copytree(smoke, folder / "smoke")
    made = nbformat.read(smoke / "iter-02" / "executed" / "align.ipynb", as_version=4)
    for cell in made.cells:
        cell["source"] = cell["source"].replace(str(smoke), str(folder / "smoke"))
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    nbformat.write(made, folder / "notebooks" / "06_align.ipynb")
    page = chromium.new_page(viewport={"width": 1200, "height": 1000})
    page.set_default_timeout(2 * PATIENCE)
    for which in (1, 2):
        visit(page, f"{address}/lab/tree/notebooks/06_align.ipynb?token=test&reset")
        page.click("text=Run >> nth=0")
        page.click("text=Run All Cells >> nth=0")
        page.locator(f"{WIDGET} input").click()
        page.keyboard.type("anna")
        page.keyboard.press("Enter")
        if which == 1:
            page.wait_for_selector(f"{WIDGET} .answer")  # the kernel answers when the cells below are done
            for number, key in enumerate("abtwa", 1):
                page.keyboard.press(key)
                shows(page, f"{number} done")
    shows(page, "5 done")
    rows = Store(folder / "smoke" / "feedback.sqlite").judgements()
    kinds = ["one is better" if row["verdict"] in ("a", "b") else row["verdict"] for row in rows]
    assert kinds == ["one is better", "one is better", "tie", "both_wrong", "one is better"]
    training = {
        json.loads(line)["id"] for line in (smoke / "iter-02" / "data" / "train.jsonl").read_text().splitlines()
    }
    assert {row["id"] for row in rows} <= training
    page.close()


def test_contract_is_text_and_a_selection_becomes_contract_offsets(notebook):
    page, folder = begin(notebook, "ben")
    pane = page.locator(f"{WIDGET} .passages")
    assert pane.inner_text() == TEXT
    assert page.locator(f"{WIDGET} b, {WIDGET} i, {WIDGET} img").count() == 0
    tones = {page.locator(f".passages .{tone}").inner_text() for tone in ("left", "right", "both")}
    assert tones == {"the law of ", "Ohio", ", and"}
    page.mouse.dblclick(*page.evaluate(MIDDLE, "other"))  # selects the word
    page.keyboard.press("m")
    shows(page, "Evidence marked")
    assert page.locator(".passages .marked").inner_text() == "other"
    page.locator(f"{WIDGET} button", has_text="is better").first.click()
    shows(page, "Question number 1?")
    start = 100 + TEXT.index("other")
    assert Store(folder / "feedback.sqlite").judgements()[0]["span"] == [start, start + 5]
    assert page.title() != "hacked"


def test_a_busy_kernel_and_an_unwritable_store_are_shown_and_lose_nothing(notebook):
    page, folder = begin(notebook, "ben")
    store, aside = folder / "feedback.sqlite", folder / "aside.sqlite"
    page.locator(".jp-Notebook .jp-InputArea-editor").nth(1).click()
    page.keyboard.press("Control+Enter")
    page.locator(f"{WIDGET} h3").click()
    page.keyboard.press("1")
    shows(page, "No reply yet: this is not saved.")
    page.keyboard.press("1")  # changes nothing
    shows(page, "Question number 1?")
    shows(page, "1 done · 5 left")
    assert page.locator(f"{WIDGET} .alert").inner_text() == ""
    store.rename(aside)
    store.write_text("no database " * 100)
    page.keyboard.press("e")
    page.keyboard.press("1")
    page.keyboard.type("Maine or ")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"{WIDGET} .alert:not(:empty)")
    assert "feedback.sqlite" in page.locator(f"{WIDGET} .alert").inner_text()
    assert "Maine or" in page.locator(f"{WIDGET} textarea").input_value()
    shows(page, "1 done · 5 left")
    aside.replace(store)
    page.keyboard.press("Enter")
    shows(page, "Question number 2?")
    assert page.locator(f"{WIDGET} .alert").inner_text() == ""
    assert "Maine or" in Store(store).judgements()[1]["edited"]
