"""Time reviewing: `python tests/benchmarks/review.py RUN CUAD.zip [CHARACTERS ...]`.

For each length the contract of CUAD nearest to it is reviewed with all 41 questions, by the champion of the run, loaded
once; then ten contracts of the first length in turn. Prints seconds by the clock and of the processor, and the peak
memory; a busy machine spoils the former. The embeddings of a contract are computed anew: its text is made new.
"""

from __future__ import annotations

import resource
import sys
import time
from pathlib import Path

from cuadft.data import contracts
from cuadft.data.documents import Document
from cuadft.review.reviewer import Reviewer

LENGTHS = (34_000, 338_000)  # characters: CUAD's median and its longest contract
REPEATED = 10


def made_new(text: str, number: int) -> str:
    """Return a text whose passages no cache holds: a rare letter stands for each "e" of every fourth word or so."""
    letter = "ëéèêēĕėęěẽ"[number % 10]
    return " ".join(word.replace("e", letter) if n % 4 == 0 else word for n, word in enumerate(text.split(" ")))


def timed(reviewer: Reviewer, texts: list[str]) -> None:
    """Review the texts and print what that took."""
    started, used = time.perf_counter(), time.process_time()
    counts = [reviewer.review(Document(f"{n}", text)).counts() for n, text in enumerate(texts)]
    seconds, processor = time.perf_counter() - started, time.process_time() - used
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    told = f"{len(texts)} x {len(texts[0]):,} characters: {seconds:.1f} s, {processor:.1f} s of the processor"
    print(f"{told}, peak {peak:.2f} GB; {counts[0]}", flush=True)


def main(run: str, archive: str, *lengths: str) -> None:
    """Load the run's champion, warm it up, and time it."""
    started = time.perf_counter()
    reviewer = Reviewer.load(run)
    reviewer.review(Document("warm", "This Agreement is governed by the laws of Ohio. " * 20))
    print(f"loaded in {time.perf_counter() - started:.1f} s", flush=True)
    found = contracts.read_contracts(Path(archive))
    wanted = [min(found, key=lambda c: abs(len(c.text) - int(length))).text for length in lengths or LENGTHS]
    for number, text in enumerate(wanted):
        timed(reviewer, [made_new(text, number)])
    timed(reviewer, [made_new(wanted[0], number + len(wanted)) for number in range(REPEATED)])


if __name__ == "__main__":
    main(*sys.argv[1:])
