"""Pages hold all of the contract's text as text, mark the quotes in it, and link to each of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
import reviewing
from hypothesis import given

from cuadft.core.pages import percent
from cuadft.review.page import framed_page, review_page, text_pieces, two_page
from cuadft.review.reviewer import Finding, Quoted

VOID = {"meta", "br"}
HOSTILE = "Fees. </div></main><script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\">"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Outline(HTMLParser):
    """Collect ids, links, labels and tags of a page, and fail if an end tag does not fit."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open, self.ids, self.links, self.tags, self.labels = [], [], [], [], []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        self.open += [tag] * (tag not in VOID)
        self.ids += [given[name] for name in ("id",) if name in given]
        self.links += [given[name] for name in ("href",) if name in given]
        self.labels += [given[name] for name in ("aria-label", "aria-labelledby") if name in given]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def quoted(text: str, words: str, answer: bool = True) -> Quoted:
    start = text.index(words)
    return Quoted(words, start, start + len(words), 1, 0.9, answer)


def hostile():
    found = Finding("<b>Fees</b>", "Fees?", "sure", 0.99, (quoted(HOSTILE, "</div></main><script>"),))
    return reviewing.review(HOSTILE, (found,), name="<script>name</script>", unread=("<i>",))


@given(reviewing.reviews())
def test_the_pieces_are_the_whole_text_and_every_place_has_its_mark(review):
    pieces = list(text_pieces(review))
    assert "".join(piece["text"] for piece in pieces) == review.document.text
    placed = [q for found in review.findings for q in found.quotes if q.start is not None]
    at = 0
    for piece in pieces:
        end = at + len(piece["text"])
        assert bool(piece["state"]) == any(q.start < end and at < q.end for q in placed)
        at = end
    assert sum(len(piece["tags"]) for piece in pieces) == len(placed)


@given(reviewing.reviews())
def test_a_page_is_well_formed_and_every_link_leads_somewhere(review):
    page = Outline(review_page(review))
    assert len(set(page.ids)) == len(page.ids)
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)
    assert {"nav", "main", "header", "h1"} <= set(page.tags) and "Clauses" in page.labels
    Outline(two_page(review, review))


@given(reviewing.reviews())
def test_no_character_of_a_contract_makes_a_page_invalid(review):
    page = review_page(review)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]", page)


def test_html_in_a_contract_is_shown_as_text_and_the_page_loads_nothing():
    for page in (review_page(hostile()), two_page(hostile(), hostile())):
        outline = Outline(page)
        assert not {"script", "img", "i", "b", "iframe", "link"} & set(outline.tags)
        assert "default-src 'none'" in page and "http://" not in page and "https://" not in page
        assert all(link.startswith("#") for link in outline.links)
    assert "&lt;img src=x" in review_page(hostile())
    assert Outline(framed_page(hostile())).tags == ["iframe"]


def test_certainty_is_never_claimed():
    assert [percent(p) for p in (None, 0.0, 0.5, 1.0)] == ["not calibrated", "below 1 %", "50 %", "above 99 %"]


def test_a_page_that_repeats_a_training_contract_says_so_first():
    told = reviewing.replace_known(hostile(), "is 'Acme', trained on in this run")
    assert "is &#39;Acme&#39;, trained on" in review_page(told) and "Not new to this run" not in review_page(hostile())


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium")
def test_a_browser_runs_nothing_of_a_contract(tmp_path):
    (tmp_path / "page.html").write_text(review_page(hostile()))
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run(
        [CHROMIUM, *flags, (tmp_path / "page.html").as_uri()], capture_output=True, text=True, timeout=120
    )
    assert "<title>Review of &lt;script&gt;name" in done.stdout and "hacked</title>" not in done.stdout
