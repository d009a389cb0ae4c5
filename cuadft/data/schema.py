"""The questions that are asked of every document, as data: CUAD's schema is one file, a user's own is another.

A schema names the documents ("contract") and what a question asks for ("clause"), and lists its categories, each with
its question. It comes from a YAML or CSV file, or from the rows themselves. For example:

    schema = read_schema("cuad")                     # the packaged schema; or the path of a file, or "rows"
    schema.match("governing law")                    # "Governing Law"
    schema.refusal                                   # "There is no such clause."
    contracts = contracts.read_contracts(path, schema)
    run_schema(iteration)                            # the schema that 01 kept: with the categories of all rows

A YAML file:

    document_name: lease
    clause_name: provision
    categories:
      - category: Rent
        question: How much is the rent?
        description: What the tenant pays, and when    # optional
        phrasings: ["What does the tenant {pay|owe}?"]    # optional

A CSV file has the columns category, question, description, and any number of columns whose names begin with "phrasing".
"""

from __future__ import annotations

import difflib
import functools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.core.text import fold_letters, fold_name

PACKAGED = "cuad"  # the schema that the package holds
FROM_ROWS = "rows"  # no file: the categories are those of the rows
NO_CATEGORY = "Other (unlabelled passage)"  # of a generated question that no category stands behind
SCHEMA_FILE = "schema.json"  # in data/ of an iteration
ANY_STYLE, PARTS = "any", ("train", "held_out")
LONGEST_WORD = 40  # characters of the document's and the clause's name
CONTRACT = "contract"  # documents of which prompts speak as lawyers do, with examples from contracts
_AN = re.compile(r"(?!eu|uni|us[aeu]|one\b)[aeiou]|hour|hono", re.IGNORECASE)  # words that take "an"
_GROUP = re.compile(r"\{([^{}]*)\}")  # innermost: it holds no other group

Phrasings = Mapping[str, Mapping[str, list[str]]]  # style -> part ("train", "held_out") -> templates


@dataclass(frozen=True)
class Category:
    """One recurring question, as it is asked, and other ways to ask it.

    told_by_title: the title of a document, or the parties in its name, tell the answer. names_parties: the spans name
    who the document is between.
    """

    name: str
    question: str
    description: str = ""
    phrasings: Phrasings = field(default_factory=dict, repr=False)
    told_by_title: bool = False
    names_parties: bool = False


@dataclass(frozen=True)
class Schema:
    """Hold the categories by name, in order, and the words for a document and for what a question asks for.

    also_called: other words for the document. words: what a group of a phrasing's template stands for. titles: "edgar"
    if titles tell who filed a document, and of which type it is, as in the SEC's archive of contracts.
    """

    name: str
    document: str = "document"
    clause: str = "statement"
    categories: Mapping[str, Category] = field(default_factory=dict)
    also_called: list[str] = field(default_factory=list)
    words: Mapping[str, list[str]] = field(default_factory=dict, repr=False)
    titles: str = "plain"

    @property
    def refusal(self) -> str:
        """The answer where a document has nothing of the kind: "There is no such clause." """
        return f"There is no such {self.clause}."

    @property
    def naming(self) -> dict[str, str]:
        """The words of texts about the documents, by what templates call them, see `naming`."""
        return naming(self.document, self.clause)

    @property
    def source(self) -> str:
        """The source of the rows that people annotated."""
        return PACKAGED if self.name == PACKAGED else "annotated"

    @functools.cached_property
    def _by_key(self) -> dict[str, str]:
        return {_key(name): name for name in self.categories}

    def match(self, name: str) -> str | None:
        """Return the category that `name` spells, in any case and punctuation, or None."""
        return self._by_key.get(_key(name))

    def nearest(self, name: str) -> str:
        """Return " (nearest: ...)" with the category most like `name`, "" if no category is like it."""
        close = difflib.get_close_matches(fold_letters(name), self._by_key, n=1, cutoff=0.6)
        return f" (nearest: {self._by_key[close[0]]})" if close else ""

    def with_rows(self, rows: Iterable[Mapping[str, Any]]) -> Schema:
        """Return the schema with the categories of annotated rows that it lacks, each asked as most of its rows are.

        If the rows share no category with the schema, theirs take the place of its own.
        """
        rows = list(rows)
        asked: dict[str, Counter[str]] = defaultdict(Counter)
        for row in rows:
            if row["category"] not in self.categories:
                asked[row["category"]][row["question"]] += 1
        new = {name: Category(name, wordings.most_common(1)[0][0]) for name, wordings in asked.items()}
        shared = not rows or any(row["category"] in self.categories for row in rows)
        return replace(self, categories={**(self.categories if shared else {}), **new})

    def record(self) -> dict[str, Any]:
        """Return the schema as JSON-able values."""
        return asdict(self) | {"categories": [asdict(category) for category in self.categories.values()]}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Schema:
        """Return the schema of a record."""
        return cls(**{**record, "categories": {each["name"]: Category(**each) for each in record["categories"]}})


def _key(name: str) -> str:
    """Return what all spellings of a category share."""
    return fold_letters(name) or " ".join(name.split())


# --- the words of prompts and pages


def naming(document: str, clause: str) -> dict[str, str]:
    """Return the words that templates of prompts and pages have places for.

    Of "contract" they are document, a_document ("a contract"), documents, Document and Documents; likewise of clause;
    beside them `expert` and `an_expert` (who knows such documents), `reader` (whom they concern) and `refusal`.
    """
    expert, reader = ("lawyer", "client") if document == CONTRACT else ("expert", "reader")
    made = {"expert": expert, "an_expert": _with_article(expert), "reader": reader}
    for name, word in (("document", document), ("clause", clause)):
        made |= {name: word, f"{name}s": plural(word), f"a_{name}": _with_article(word)}
        made |= {key.capitalize(): made[key][:1].upper() + made[key][1:] for key in (name, f"{name}s")}
    return made | {"refusal": Schema("", document, clause).refusal}


def plural(word: str) -> str:
    """Return an English noun in the plural; a word in another script stays as it is."""
    for ending, more in (("sis", "ses"), ("[sxz]|[cs]h", r"\g<0>es"), ("(?<![aeiou])y", "ies"), ("[a-z]", r"\g<0>s")):
        if re.search(f"(?:{ending})$", word, re.IGNORECASE):
            return re.sub(f"(?:{ending})$", more, word, flags=re.IGNORECASE)
    return word


def _with_article(word: str) -> str:
    return f"an {word}" if _AN.match(word) else f"a {word}"


# --- reading a file


def _phrasings(value: Any) -> Any:
    """Return a plain list of phrasings as those of any style, all to train on."""
    return {ANY_STYLE: {"train": value}} if isinstance(value, list) else value or {}


_Name = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"\S")]
_Word = Annotated[_Name, Field(max_length=LONGEST_WORD)]
_Templates = Annotated[list[_Name], Field(min_length=1)]


class _CategoryEntry(BaseModel):
    model_config = ConfigDict(extra="forbid")
    category: _Name
    question: _Name
    description: str = ""
    phrasings: Annotated[dict[str, dict[Literal["train", "held_out"], _Templates]], BeforeValidator(_phrasings)] = {}
    told_by_title: bool = False
    names_parties: bool = False


class _SchemaFile(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: _Name = ""
    document_name: _Word = "document"
    clause_name: _Word = "statement"
    titles: Literal["plain", "edgar"] = "plain"
    also_called: list[_Word] = []
    words: dict[str, list[str]] = {}
    categories: Annotated[list[_CategoryEntry], Field(min_length=1)]


def read_schema(name: str | Path) -> Schema:
    """Return a schema: "cuad" the packaged one, "rows" one without categories, else that of a YAML or CSV file.

    Raises InputError that names every fault of the file: unknown keys, missing questions, one category twice.
    """
    if str(name) == FROM_ROWS:
        return Schema(FROM_ROWS)
    if str(name) == PACKAGED:
        return packaged_schema()
    path = runs.resolve_path(name)
    if not path.is_file():
        allowed = f"'{PACKAGED}', '{FROM_ROWS}' (the categories of the rows) or the path of a YAML or CSV file"
        raise InputError(f"schema: got {str(name)!r}, but there is no such file; give {allowed}.")
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        return parse_schema(path.read_bytes(), str(path), path.stem)
    return _checked({"categories": _table_entries(path)}, str(path), path.stem)


@functools.cache
def packaged_schema() -> Schema:
    """Return CUAD's schema."""
    text = resources.files("cuadft.data").joinpath(f"schemas/{PACKAGED}.yaml").read_text("utf-8")
    return parse_schema(text, PACKAGED, PACKAGED)


def parse_schema(text: str | bytes, where: str, name: str) -> Schema:
    """Return the schema that a YAML text spells; raises InputError, which names `where`."""
    try:
        found = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text).get_single_data()  # safe_load, by libyaml
    except yaml.YAMLError as error:
        raise InputError(f"{where} is not YAML ({error}): correct it.") from error
    if isinstance(found, dict) and isinstance(found.get("categories"), dict):  # the short form: category: question
        found["categories"] = [{"category": key, "question": asked} for key, asked in found["categories"].items()]
    return _checked(found, where, name)


def _table_entries(path: Path) -> list[dict[str, Any]]:
    """Return the categories of a table; the columns' names in any case and punctuation."""
    entries = []
    for row in files.read_table(path):
        values = {fold_name(name): " ".join(str(value or "").split()) for name, value in row.values.items()}
        entry = {name: values.get(name, "") for name in ("category", "question", "description")}
        phrasings = [text for name, text in values.items() if name.startswith("phrasing") and text]
        entries.append(entry | {"phrasings": phrasings} if phrasings else entry)
    return entries


def _checked(found: Any, where: str, name: str) -> Schema:
    try:
        read = _SchemaFile.model_validate(found)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, each['loc'])) or 'the file'}: {each['msg']}" for each in error.errors()]
        raise _faulty(where, faults) from error
    keys = Counter(_key(each.category) for each in read.categories)
    faults = [f"category {key!r} stands {times} times" for key, times in keys.items() if times > 1]
    made = {}
    for each in read.categories:
        category = " ".join(each.category.split())
        if category == NO_CATEGORY or "__" in category:
            faults.append(f"category {category!r}: choose another name, without '__'")
        made[category] = Category(category, **each.model_dump(exclude={"category"}))
        faults += _template_faults(made[category], read.words)
    if faults:
        raise _faulty(where, faults)
    kept = read.model_dump(include={"also_called", "words", "titles"})
    return Schema(read.name or name, read.document_name, read.clause_name, made, **kept)


def _template_faults(category: Category, words: Mapping[str, list[str]]) -> list[str]:
    """Return what is wrong with the phrasings of a category: groups that are not closed or stand for nothing."""
    templates = [each for parts in category.phrasings.values() for some in parts.values() for each in some]
    faults = []
    for template in templates:
        try:
            expand_template(template, words)
        except InputError as error:
            faults.append(f"category {category.name!r}: {error}")
    return faults


def expand_template(template: str, words: Mapping[str, list[str]]) -> list[str]:
    """Return the phrasings of a template; `words` says what a group without alternatives, `{name}`, stands for.

    Raises InputError for a group that stands for nothing, and for a brace without its other half.
    """
    if not (group := _GROUP.search(template)):
        if "{" in template or "}" in template:
            raise InputError(f"{template!r} has a brace without its other half: write {{one|other}}.")
        return [template]
    before, inside, after = template[: group.start()], group[1], template[group.end() :]
    if "|" not in inside and inside not in words:
        raise InputError(f"{{{inside}}} of {template!r} is not among the words: give alternatives, {{one|other}}.")
    choices = inside.split("|") if "|" in inside else words[inside]
    found = [text for choice in choices for text in expand_template(before + choice + after, words)]
    return list(dict.fromkeys(found))


def _faulty(where: str, faults: list[str]) -> InputError:
    listed = "".join(f"\n  - {fault}" for fault in faults[:5])
    more = f"\n  and {len(faults) - 5} more" if len(faults) > 5 else ""
    form = "document_name, clause_name and categories, each with category, question and perhaps phrasings"
    return InputError(f"{where} is no schema; correct these {len(faults)} faults:{listed}{more}\nIt holds {form}.")


# --- the schema of a run


def run_schema(iteration: runs.Iteration) -> Schema:
    """Return the schema that 01_data_prep kept, with the categories of all rows; CUAD's if it kept none."""
    path = iteration.path("data", SCHEMA_FILE)
    return Schema.from_record(files.read_json(path)) if path.is_file() else packaged_schema()


def newest_schema(run: Path) -> Schema:
    """Return the schema of a run's newest iteration that has data."""
    kept = sorted(
        run.glob(f"iter-[0-9]*/data/{SCHEMA_FILE}"), key=lambda path: int(path.parts[-3].removeprefix("iter-"))
    )
    return Schema.from_record(files.read_json(kept[-1])) if kept else packaged_schema()


def save_schema(schema: Schema, iteration: runs.Iteration) -> None:
    """Write the schema of an iteration, for all later stages."""
    files.write_json(iteration.path("data", SCHEMA_FILE), schema.record())
