"""The page of the service in a real browser: a dropped PDF shows its review, and nothing else is asked for."""

from __future__ import annotations

import base64
import os
import re
import sys
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen

import pytest
import reviewing
import tiny_run

ROOT = Path(__file__).parents[2]
PATIENCE = 60_000  # milliseconds: a busy machine is no fault of the page
TOKEN = "a-token-for-tests"
CLAUSES = "This Agreement is governed by the law of Ohio.\nThe Distributor pays <b>ten</b> dollars."
DROP = """([name, content]) => {
    const bytes = Uint8Array.from(atob(content), letter => letter.charCodeAt(0));
    const data = new DataTransfer();
    data.items.add(new File([bytes], name));
    for (const kind of ["dragenter", "dragover", "drop"])
        document.getElementById("drop").dispatchEvent(
            new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true}));
}"""

BARE = "text => { text.querySelectorAll('.tag, .page').forEach(each => each.remove()); return text.textContent; }"


@pytest.fixture(scope="module")
def address(tiny, tmp_path_factory):
    """Start `cuadft serve` with a token; yield its address."""
    run = tiny_run.make(tmp_path_factory.mktemp("runs") / "acme", tiny)
    env = os.environ | {"CUADFT_TOKEN": TOKEN, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cuadft.cli", "serve", str(run), "--port", "0", "--megabytes", "1"]
    process = Popen(command, env=env, stdout=PIPE, stderr=STDOUT, text=True)
    told = process.stdout.readline()
    yield re.search(r"http://127\.0\.0\.1:\d+", told)[0]
    process.terminate()
    assert TOKEN not in told + process.communicate(timeout=60)[0]


@pytest.fixture
def page(chromium, address):
    """Open the page as a person who knows the token; yield it with the addresses that it asked for."""
    context = chromium.new_context(http_credentials={"username": "", "password": TOKEN})
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.asked = []
    page.on("request", lambda request: page.asked.append(request.url))
    page.goto(address)
    yield page
    context.close()


def drop(page, name: str, content: bytes) -> None:
    page.evaluate(DROP, [name, base64.b64encode(content).decode()])


def test_a_dropped_pdf_shows_its_review(page, address):
    drop(page, "supply.pdf", reviewing.pdf(CLAUSES, "The second page names no clause of note."))
    page.get_by_text("Done: supply").wait_for()
    frame = page.frame_locator("#review")
    assert frame.get_by_role("heading", name="supply").count() == 1
    frame.locator('nav a[href^="#q"]').first.click()  # a link into the text stays inside the review
    assert frame.get_by_role("heading", name="supply").count() == 1
    shown = frame.locator(".text").evaluate(BARE)
    assert "governed by the law of Ohio" in shown and "<b>ten</b> dollars" in shown
    assert all(each.startswith(address) for each in page.asked)


def test_a_second_contract_takes_the_place_of_the_first(page):
    for name in ("one", "two"):
        drop(page, f"{name}.txt", f"Contract {name}.\n{CLAUSES}".encode())
        page.get_by_text(f"Done: {name}").wait_for()
    assert page.frame_locator("#review").get_by_role("heading", name="two").count() == 1


def test_a_file_is_also_chosen_and_a_text_pasted_with_the_keyboard(page):
    page.get_by_label("Drop a contract here").set_input_files(
        {"name": "chosen.txt", "mimeType": "text/plain", "buffer": CLAUSES.encode()}
    )
    page.get_by_text("Done: chosen").wait_for()
    page.get_by_text("Paste a text instead").focus()
    page.keyboard.press("Enter")
    page.get_by_label("The contract's text").fill(CLAUSES)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_text("Done: pasted text").wait_for()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("empty.pdf", b"", "is empty"),
        ("locked.pdf", reviewing.pdf(CLAUSES, password="x"), "is protected by a password"),
        ("scan.pdf", reviewing.pdf(""), "no text"),
        ("big.pdf", b"%PDF" + b"a" * 1_100_000, "larger than 1 MB"),
        ("<img src=x onerror=document.title='hacked'>.exe", b"MZ\x90" * 99, "give a PDF"),
    ],
)
def test_what_cannot_be_read_is_told_on_the_page(page, name, content, told):
    drop(page, name, content)
    status = page.get_by_role("status")
    status.filter(has_text=told).wait_for()
    assert "error" in status.get_attribute("class") and page.title() == "Contract review"
    assert page.locator("#review").is_hidden()


def test_the_page_of_requests_lists_them(page, address):
    page.goto(f"{address}/docs")
    page.get_by_role("heading", name="POST /ask").wait_for()
    assert page.get_by_text("contract", exact=True).count() == 1 and page.get_by_text("name (optional)").count() == 2
    assert all(each.startswith(address) for each in page.asked)
