"""Write the sample contracts of cuadft/sample from the banks beside this file; the same bytes anywhere.

python tests/sample/write_sample.py            write contracts.json
python tests/sample/write_sample.py --check    exit 1 if the shipped files differ from what would be written

deals.csv holds the invented parties, clauses.py and boilerplate.py the wording; plan.py says which deal
carries which category.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import random
import re
import sys
from collections import Counter
from pathlib import Path

import boilerplate as bp
from categories import CATEGORIES, QUESTION
from clauses import CLAUSES, DATELINES, PREAMBLES
from deals import OFFICES, PEOPLE, TYPES
from plan import COUNTS, ELSEWHERE, LISTS, SECTION, WORDS, jobs

SAMPLE = Path(__file__).resolve().parents[2] / "cuadft" / "sample"
SPAN = re.compile(r"\[\[(?:([a-z+]+):)?(.*?)\]\]", re.S)
OPTION = re.compile(r"<([a-z+]+)\|([^<>]*)>")
SLOT = re.compile(r"\{([^{}]*)\}")
MARK = re.compile("\x01(.*?)\x02")
Paragraph = tuple[str, list[tuple[str, int, int]]]  # words, gold spans (category code, start, end)


class Writer:
    """One contract: its deal, its categories, and the text and gold spans written so far."""

    def __init__(self, deal: dict, active: set[str], key: str, picked: dict, used: Counter) -> None:
        self.deal, self.active, self.key, self.picked, self.used = deal, active, key, picked, used
        self.text, self.spans, self.done, self.skip = "", [], {"doc", "parties", "date"}, False
        self.seed("start")
        self.mode = self.dating()
        provider, other, _, _, restricted, self.tags = TYPES[deal["type"]]
        roles = deal.get("roles", self.form.random() < 0.55)
        names = {"P": provider if roles else deal["P_short"], "C": other if roles else deal["C_short"]}
        self.numerals = self.form.choice(("both", "both", "digits", "words"))
        self.values = {name: value for name, value in deal.items() if name != "date"} | names
        self.values |= {"X": names[restricted], "Y": names["C" if restricted == "P" else "P"]}
        self.values |= {"rfield": deal["field" if restricted == "C" else "cfield"], "PU": names["P"].upper()}
        self.values |= {"Doc": deal["doc"], "DOC": deal["doc"].upper()} | self.dates()
        self.values["nonex"] = "" if "excl" in self.active else ", non-exclusive"
        self.values["shall"] = self.form.choice(("shall", "shall", "will"))

    def seed(self, step: str) -> None:
        """Start the random choices of one step; near-duplicates share a key, so that they choose alike."""
        self.form = random.Random(f"form {self.key} {step}")  # wording
        self.fill = random.Random(f"fill {self.key} {step}")  # numbers

    def dating(self) -> str:
        """Say how the preamble dates the contract (a key of DATELINES)."""
        if {"eff", "date"} <= self.active:
            return self.form.choice(("same", "same", "same", "both", "defined"))
        return "date" if "date" in self.active else "eff"

    def dates(self) -> dict[str, str]:
        """Return the dates of the contract as it writes them."""
        day = self.form.choice(("{0:%B} {0.day}, {0.year}", "{0:%B} {0.day}, {0.year}", "{0.day} {0:%B} {0.year}"))
        signed = dt.date.fromisoformat(self.deal["date"])
        begins = signed + dt.timedelta(self.fill.choice((9, 17, 24)) if self.mode in ("both", "defined") else 0)
        ends = dt.date(signed.year + self.fill.choice((2, 3, 5)), 12, 31)
        tail = {1: "st", 2: "nd", 3: "rd"}.get(signed.day % 10, "th") if signed.day not in (11, 12, 13) else "th"
        return {
            "date": day.format(signed),
            "eff": day.format(begins),
            "endday": day.format(ends),
            "longdate": f"{signed.day}{tail} day of {signed:%B}, {signed.year}",
            "start": "the Effective Date" if "eff" in self.active else "the date of this Agreement",
        }

    def slot(self, name: str) -> str:
        """Fill one {slot}: a choice, a number, a listed value or a fact of the deal; {SLOT} in capitals."""
        if "|" in name:
            return self.form.choice(name.split("|"))
        if name in self.values:
            return self.values[name]
        if name.isupper():
            return self.slot(name.lower()).upper()
        if name in LISTS:
            return self.fill.choice(LISTS[name])
        number, percent = self.fill.choice(COUNTS[name]), name.startswith("pct")
        digits, word = f"{number}{'%' * percent}", WORDS[number] + " percent" * percent
        return {"digits": digits, "words": word, "both": f"{word} ({digits})"}[self.numerals]

    def option(self, match: re.Match[str]) -> str:
        """Keep the words of an option if the contract has its categories and they are still to be written."""
        codes = set(match[1].split("+"))
        wanted = codes <= self.active and not codes & self.done and not self.skip
        return f"\x01{match[1]}\x02{match[2]}" if wanted else ""

    def render(self, phrasing: str, own: str = "") -> Paragraph:
        """Turn a phrasing of the category `own` into words and gold spans."""
        self.skip = own == "lic" and self.form.random() < 0.35  # then its qualities get paragraphs of their own
        marked = OPTION.sub(self.option, re.sub(r"^#\w+ ", "", phrasing))
        while SLOT.search(marked):
            marked = SLOT.sub(lambda match: self.slot(match[1]), marked, count=1)
        text, spans, last = "", [], 0
        for match in SPAN.finditer(marked):
            text += MARK.sub("", marked[last : match.start()])
            codes = "+".join([match[1] or own, *MARK.findall(match[2])]).split("+")
            words = MARK.sub("", match[2])
            spans += [(code, len(text), len(text) + len(words)) for code in dict.fromkeys(codes)]
            text, last = text + words, match.end()
        self.done.update(code for code, _, _ in spans)
        return (text + MARK.sub("", marked[last:])).strip(), spans

    def pick(self, phrasings: list[str], topic: str) -> str:
        """Choose among the phrasings that fit the contract type one of those least used so far."""
        fits = [p for p in phrasings if p[0] != "#" or set(p[1 : p.index(" ")]) & set(self.tags)]
        if (self.key, topic) not in self.picked:
            fewest = min(self.used[p] for p in fits)
            dice = random.Random(f"pick {self.key} {topic}")
            self.picked[self.key, topic] = dice.choice([p for p in fits if self.used[p] == fewest])
            self.used[self.picked[self.key, topic]] += 1
        return self.picked[self.key, topic]

    def tail(self, text: str, topic: str) -> str:
        """Return neutral closing words for some of the short paragraphs, clauses and boilerplate alike."""
        if len(text) > 210 or self.form.random() < 0.6:
            return ""
        return " " + self.render(self.pick(bp.TAILS, f"tail {topic}"))[0]

    def clause(self, code: str) -> list[Paragraph]:
        """Write the paragraph of one category, and after a restriction the exception to it."""
        text, spans = self.render(self.pick(CLAUSES[code], code), code)
        paragraphs = [(text + self.tail(text, code), spans)]
        if code in CLAUSES["cre"] and "cre" in self.active - self.done:
            paragraphs.append(self.render(self.pick(CLAUSES["cre"][code], "cre"), "cre"))
        return paragraphs

    def clauses(self) -> dict[str, list[Paragraph]]:
        """Return section -> the clauses that stand in it."""
        sections = {name: [] for name in bp.HEADINGS}
        for code, section in SECTION.items():
            if code in self.active - self.done:
                self.seed(code)
                elsewhere = code in ELSEWHERE and self.form.random() < 0.2
                sections[ELSEWHERE[code] if elsewhere else section] += self.clause(code)
        return sections

    def pad(self, sections: dict[str, list[Paragraph]], wanted: int) -> None:
        """Insert boilerplate and look-alikes among the clauses until the contract is long enough."""
        alikes = [(s, [t]) for s, absent, t in bp.LOOKALIKES if not self.active.intersection(absent.split())]
        alikes.sort(key=lambda alike: random.Random(self.key + alike[1][0]).random())
        first, *rest = [(name, topic) for name, topics in bp.BOILERPLATE.items() for topic in topics]
        self.form.shuffle(rest)
        size = sum(len(text) + 8 for part in sections.values() for text, _ in part)
        for count, (name, topic) in enumerate([first, *alikes[:3], *rest]):
            if count > 13 and size > wanted:
                break
            self.seed(f"pad {topic[0]}")
            words = self.render(self.pick(topic, topic[0]))[0]
            words += self.tail(words, topic[0])
            size += len(words) + 8
            insert(sections[name], words, 0 if count == 0 else self.form.randint(0, len(sections[name])))

    def define(self, sections: dict[str, list[Paragraph]]) -> None:
        """Define the capitalised terms that the contract uses."""
        text = " ".join(words for part in sections.values() for words, _ in part)
        terms = {
            "goods": self.values["goods"],
            "lic": self.values["lic"],
            "affiliate": "Affiliate",
            "words": "",
        }
        for name, term in terms.items():
            if term in text:
                sections["defs"].append(self.render(self.pick(bp.DEFINITIONS[name], f"define {name}")))

    def add(self, paragraph: Paragraph, lead: str = "") -> None:
        """Append one paragraph; its spans move to where it stands."""
        start = len(self.text) + len(lead)
        self.text += lead + paragraph[0] + "\n\n"
        self.spans += [(code, start + a, start + b) for code, a, b in paragraph[1]]

    def write(self) -> None:
        """Write the whole contract into self.text and self.spans."""
        self.add(self.render("[[doc:{DOC}]]"))
        frame = self.pick(PREAMBLES, "frame")
        self.add(self.render(frame.replace("{dateline}", self.pick(DATELINES[self.mode], "dateline"))))
        if self.deal["doc"].startswith("Amended"):
            self.add((bp.AMENDED, []))
        self.add(self.render(self.pick(bp.RECITALS, "recitals")))
        sections = self.clauses()
        self.seed("pad")
        self.pad(sections, self.form.randint(4600, 6600))
        self.seed("headings")
        self.define(sections)
        self.number(sections)
        self.add((self.form.choice(bp.CLOSINGS), []))
        for side, person in zip("PC", self.fill.sample(PEOPLE, 2), strict=True):
            office = self.fill.choice(OFFICES)
            self.add((f"{self.deal[side + '_full']}\nBy: /s/ {person}\nName: {person}\nTitle: {office}", []))

    def number(self, sections: dict[str, list[Paragraph]]) -> None:
        """Append the sections under numbered headings."""
        heading = self.form.choice(("{n}. {h}", "ARTICLE {n}. {H}", "Section {n}. {h}", "{n}. {H}"))
        item = self.form.choice(("{n}.{i} ", "{n}.{i} ", "({a}) "))
        for n, name in enumerate((name for name in bp.HEADINGS if sections[name]), 1):
            words = self.form.choice(bp.HEADINGS[name])
            self.add((heading.format(n=n, h=words, H=words.upper()), []))
            for i, paragraph in enumerate(sections[name], 1):
                self.add(paragraph, item.format(n=n, i=i, a=chr(96 + i)))


def insert(section: list[Paragraph], words: str, place: int) -> None:
    """Insert boilerplate; short pieces join their neighbour, an exception stays behind its rule."""
    while place < len(section) and any(code == "cre" for code, _, _ in section[place][1]):
        place += 1
    if place and not section[place - 1][1] and len(section[place - 1][0]) + len(words) < 330:
        section[place - 1] = (f"{section[place - 1][0]} {words}", [])
    else:
        section.insert(place, (words, []))


def title(deal: dict) -> str:
    """Return a title in the manner of CUAD: FILER_MM_DD_YYYY-EX-10.N-DOCUMENT NAME."""
    rng = random.Random(deal["C_full"] + deal["doc"])
    filed = dt.date.fromisoformat(deal["date"]) + dt.timedelta(rng.randint(9, 190))
    filer = re.sub(r"[^A-Z,&]", "", deal[deal["filed"] + "_full"].upper())
    return f"{filer}_{filed:%m_%d_%Y}-EX-10.{rng.randint(1, 42)}-{deal['doc'].upper()}"


def entry(name: str, writer: Writer) -> dict:
    """Return one contract in the SQuAD 2.0 layout of CUAD."""
    qas = []
    for code, (category, details) in CATEGORIES.items():
        spans = sorted({(a, b) for own, a, b in writer.spans if own == code})
        answers = [{"text": writer.text[a:b], "answer_start": a} for a, b in spans]
        question = QUESTION.format(name=category, details=details)
        qa = {
            "id": f"{name}__{category}",
            "question": question,
            "answers": answers,
            "is_impossible": not answers,
        }
        qas.append(qa)
    return {"title": name, "paragraphs": [{"context": writer.text.rstrip() + "\n", "qas": qas}]}


def files() -> dict[str, str]:
    """Return name -> content of the files that ship with the package."""
    picked, used, data = {}, Counter(), []
    for deal, active, key in jobs():
        writer = Writer(deal, active, key, picked, used)
        writer.write()
        data.append(entry(title(deal), writer))
    data.sort(key=lambda contract: contract["title"])
    compact = ",\n".join(json.dumps(contract, ensure_ascii=False, separators=(",", ":")) for contract in data)
    sample = f'{{"version":"cuadft_sample_v1","data":[\n{compact}\n]}}\n'
    return {"contracts.json": sample}


def main() -> int:
    """Write the files, or compare them with the shipped ones."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a shipped file differs")
    check, different = parser.parse_args().check, 0
    for name, content in files().items():
        path = SAMPLE / name
        if not check:
            SAMPLE.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.encode())
            print(f"{name}: {len(content.encode()):,} bytes")
        elif not path.is_file() or path.read_bytes() != content.encode():
            different += 1
            print(f"{name} differs: run python tests/sample/write_sample.py", file=sys.stderr)
    return int(different > 0)


if __name__ == "__main__":
    sys.exit(main())
