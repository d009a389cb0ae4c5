"""Reading contracts: what is read is exact, and what is wrong is told clearly and all at once."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path

import docx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuadft.core.errors import InputError
from cuadft.data import contracts, cuad
from cuadft.data.contracts import Contract, locate_contracts, read_contracts
from cuadft.data.documents import read_plain_folder
from cuadft.data.schema import packaged_schema

TITLE = "ACMECORP_05_12_2020-EX-10.1-SUPPLY AGREEMENT"
TEXT = "SUPPLY AGREEMENT\n\nThis Agreement is governed by the laws of Ohio. The term is two years."
LAW = "governed by the laws of Ohio"
ASKED = (
    'Highlight the parts (if any) of this contract related to "Governing Law" that should be reviewed by a'
    " lawyer. Details: Which state/country's law  governs\u00a0 the interpretation of the contract?"
)
CUAD = Path(os.environ.get("CUADFT_CUAD") or Path(__file__).parents[3] / "shared" / "cuad" / "CUAD_v1.zip")
needs_cuad = pytest.mark.skipif(not CUAD.is_file(), reason="CUAD_v1.zip not here; set CUADFT_CUAD")


def question(**changes: object) -> dict:
    row = {
        "id": f"{TITLE}__Governing Law",
        "question": ASKED,
        "answers": [{"text": LAW, "answer_start": TEXT.index(LAW)}],
        "is_impossible": False,
    }
    return {**row, **changes}


def document(*questions: dict, title: str = TITLE, text: str = TEXT) -> dict:
    return {"title": title, "paragraphs": [{"context": text, "qas": list(questions)}]}


def write(folder: Path, *documents: object, name: str = "own.json") -> Path:
    path = folder / name
    path.write_text(json.dumps({"version": "1", "data": list(documents)}), encoding="utf-8")
    return path


def complaint(call: object, *arguments: object) -> str:
    with pytest.raises(InputError) as caught:
        call(*arguments)
    return str(caught.value)


def pdf(path: Path, words: str) -> Path:
    """Write the smallest PDF that shows `words` on its one page (none: a blank page, like a scan)."""
    content = f"BT /F1 12 Tf 20 100 Td ({words}) Tj ET".encode() if words else b""
    objects = [
        b"<</Type/Catalog/Pages 2 0 R>>",
        b"<</Type/Pages/Kids[3 0 R]/Count 1>>",
        b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 200]/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>>>>>",
        b"<</Length %d>>stream\n%s\nendstream" % (len(content), content),
        b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    body, offsets = b"%PDF-1.4\n", []
    for number, each in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj%s endobj\n" % (number, each)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    end = b"xref\n0 6\n0000000000 65535 f \n%strailer<</Size 6/Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (
        table,
        len(body),
    )
    path.write_bytes(body + end)
    return path


def test_a_row_keeps_its_exact_span_and_the_question_without_its_frame(tmp_path: Path) -> None:
    (contract,) = read_contracts(write(tmp_path, document(question())))
    (row,) = contract.rows
    assert row == {
        "id": f"{TITLE}__Governing Law",
        "contract": TITLE,
        "contract_type": "Supply",
        "category": "Governing Law",
        "question": packaged_schema().categories["Governing Law"].question,
        # "SUPPLY AGREEMENT" 16 + two line ends + "This Agreement is " 18 = 36
        "answers": [{"text": LAW, "start": 36}],
        "is_impossible": False,
        "source": "cuad",
    }
    assert (contract.filer, contract.contract_type, contract.text) == ("acme", "Supply", TEXT)


def test_questions_of_ones_own_are_kept_as_they_are(tmp_path: Path) -> None:
    own = question(question="Whose law applies?  (state)")
    assert read_contracts(write(tmp_path, document(own)))[0].rows[0]["question"] == "Whose law applies?  (state)"


def test_missing_is_impossible_follows_from_the_answers(tmp_path: Path) -> None:
    with_answer, without = question(), question(id="x__Insurance", answers=[])
    del with_answer["is_impossible"], without["is_impossible"]
    rows = read_contracts(write(tmp_path, document(with_answer, without)))[0].rows
    assert [row["is_impossible"] for row in rows] == [False, True]


@pytest.mark.parametrize(
    ("row_id", "asked", "category"),
    [
        ("a__governing-law", "q", "Governing Law"),
        ("a__ROFR / ROFO / ROFN", "q", "Rofr/Rofo/Rofn"),
        ("17", 'related to "non compete"', "Non-Compete"),
        ("a__17", 'related to "Audit rights"', "Audit Rights"),
        ("my__title__Insurance", "q", "Insurance"),
    ],
)
def test_categories_are_recognised_whatever_case_and_punctuation(
    tmp_path: Path, row_id: str, asked: str, category: str
) -> None:
    rows = read_contracts(write(tmp_path, document(question(id=row_id, question=asked))))[0].rows
    assert rows[0]["category"] == category


def test_there_are_41_categories_with_a_tidy_description() -> None:
    schema = packaged_schema()
    assert len(schema.categories) == 41
    assert all(each.question == " ".join(each.question.split()) for each in schema.categories.values())
    assert schema.nearest("Goverment Law") == " (nearest: Governing Law)" and schema.nearest("xyz") == ""


def test_types_come_from_the_table_beside_the_json_before_the_title(tmp_path: Path) -> None:
    (tmp_path / "contract_types.csv").write_text(f"title,contract_type\n{TITLE.lower()},Services Agreement\n")
    assert read_contracts(write(tmp_path, document(question())))[0].contract_type == "Service"


@pytest.mark.parametrize(
    ("folder", "table", "expected"),
    [
        ("License_Agreements", "", "License"),
        ("License_Agreements", "Hosting Agreement", "Hosting"),
        ("", "", "Supply"),
    ],
)
def test_types_in_a_zip_come_from_table_then_folder_then_title(
    tmp_path: Path, folder: str, table: str, expected: str
) -> None:
    path = tmp_path / "own.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("deep/CUAD_v1/CUAD_v1.json", json.dumps({"data": [document(question())]}))
        if folder:
            archive.writestr(f"deep/CUAD_v1/full_contract_pdf/Part_I/{folder}/{TITLE.replace('_', ' ')}.PDF", "")
        if table:
            archive.writestr("deep/CUAD_v1/contract_types.csv", f"title,contract_type\n{TITLE},{table}\n")
    assert read_contracts(path)[0].contract_type == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Service Agreement", "Service"),
        ("Services", "Service"),
        ("Co_Branding", "Co-Branding"),
        ("Joint Venture _ Filing", "Joint Venture"),
        ("Non_Compete_Non_Solicit", cuad.CONTRACT_TYPES[16]),
        ("Strategic Alliance Agreements", "Strategic Alliance"),
        ("Employment Agreement", "Employment"),
        ("", ""),
    ],
)
def test_names_of_types_are_normalised(name: str, expected: str) -> None:
    assert cuad.type_of_name(name) == expected


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("A,INC_10_11_2002-EX-10.17-TRANSPORTATION SERVICES AGREEMENT", "Transportation"),
        ("B_07_20_2000-EX-10.5-LICENSE AND HOSTING AGREEMENT", "Hosting"),
        ("CInc_20180112_S-1_EX-10.16_110_EX-10.16_Maintenance Agreement2", "Maintenance"),
        ("MARKETINGINC_07_20_2000-EX-10.5-Lease", ""),
    ],
)
def test_a_title_announces_its_type_after_the_exhibit(title: str, expected: str) -> None:
    assert cuad.type_in_title(title) == expected


def test_one_company_is_one_filer_however_its_title_is_written() -> None:
    same = [
        "ADURO BIOTECH,INC_06_02_2020-EX-1-X",
        "AduroBiotechInc_20190822_10-K_EX-1_Y",
        "Aduro Biotech, Inc. - Z Agreement",
    ]
    assert {cuad.filer(title) for title in same} == {"adurobiotech"}
    assert cuad.filer("Supply Agreement - Acme") != cuad.filer("Supply Agreement - Beta")
    assert cuad.filer("***") == "***"


@pytest.mark.parametrize(
    ("start", "words", "advice"),
    [
        (0, LAW, "stand first at 36 in 'context': correct 'answer_start'"),
        (36, "governed by the laws of Utah", "stand nowhere in 'context'"),
        (-1, "The term", "stand first at 66 in"),
        (10**9, LAW, "outside the text"),
        (1, "is", "stand first at 20 in"),
    ],
)
def test_a_span_off_its_offset_is_told_with_the_way_out(tmp_path: Path, start: int, words: str, advice: str) -> None:
    wrong = question(answers=[{"text": words, "answer_start": start}])
    message = complaint(read_contracts, write(tmp_path, document(wrong)))
    assert advice in message and TITLE in message and "Governing Law" in message and words in message


def test_five_faults_are_shown_and_the_rest_counted(tmp_path: Path) -> None:
    rows = [question(id=f"{n}__Insurance", answers=[{"text": "nowhere", "answer_start": n}]) for n in range(8)]
    message = complaint(read_contracts, write(tmp_path, document(*rows)))
    assert "8 problems" in message and message.count("\n  - ") == 5 and "and 3 more" in message


@pytest.mark.parametrize(
    ("documents", "told"),
    [
        ([], "no contracts but {'version': '1', 'data': []}; expected the SQuAD 2.0 layout"),
        ([document(text=" ")], "context: must not be blank; found ' '"),
        ([document(text="bad \ud800")], "context: Input should be a valid string"),
        ([document(question(), question(question="q"))], "id 'ACME"),
        ([document(), document(text="Other")], "title 'ACME"),
        ([document(question(id="a", question="q"))], "end it with '__'"),
        ([document(question(answers=[]))], "there are 0 answers"),
        ([document(question(is_impossible=True))], "there are 1 answers"),
        ([document(question(is_impossible="no"))], "is_impossible: Input should be a valid boolean; found 'no'"),
        ([document(question(answers=None))], "qas.0.answers: Input should be a valid list; found None"),
        ([document(question(answers=[{"text": LAW, "answer_start": "36"}]))], "valid integer; found '36'"),
        ([document(question(answers=[{"text": LAW, "answer_start": True}]))], "valid integer; found True"),
        ([document(question(answers=[{"answer_start": 3}]))], "qas.0.answers.0.text: Field required"),
        ([document(question(answers=["x"]))], "qas.0.answers.0: Input should be a valid dictionary"),
        (
            [document(question(id=5))],
            f"contract '{TITLE}', data.0.paragraphs.0.qas.0.id: Input should be a valid string",
        ),
        ([document("q")], "qas.0: Input should be a valid dictionary"),
        (["x"], "data.0: Input should be a valid dictionary"),
        ([{"title": "A"}], "paragraphs: Field required"),
        ([{"title": "A", "paragraphs": document()["paragraphs"] * 2}], "paragraphs: must be one; join several"),
        ([{"title": "A", "paragraphs": [{"context": "x"}]}], "qas: Field required"),
    ],
)
def test_each_fault_of_the_layout_has_its_message(tmp_path: Path, documents: list, told: str) -> None:
    assert told in complaint(read_contracts, write(tmp_path, *documents))


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"", "not whole UTF-8 JSON (Expecting value"),
        (b'{"data": [{"title"', "not whole UTF-8 JSON (Expecting ':'"),
        (b"[" * 100_000, "not whole UTF-8 JSON (maximum recursion"),
        (b'{"data": "\xff"}', "not whole UTF-8 JSON ('utf-8' codec can't decode byte 0xff in position 10"),
        (b"[1, 2]", "expected the SQuAD 2.0 layout"),
        (b'{"data": 5}', "expected the SQuAD 2.0 layout"),
        (b"9" * 5000, "not whole UTF-8 JSON (Exceeds the limit"),
        (b"PK\x03\x04 cut short", "not a complete zip"),
    ],
)
def test_files_that_are_no_json_or_zip_are_told(tmp_path: Path, raw: bytes, told: str) -> None:
    path = tmp_path / "own.json"
    path.write_bytes(raw)
    assert told in complaint(read_contracts, path)


def test_broken_archives_are_told(tmp_path: Path) -> None:
    path = tmp_path / "CUAD_v1.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("CUAD_v1.json", json.dumps({"data": [document(question())]}))
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert "not a complete zip" in complaint(read_contracts, path)
    path.write_bytes(whole[:60] + b"\x00\x01\x02\x03" + whole[64:])
    assert "not a complete zip" in complaint(read_contracts, path)
    path.write_text("<html>404</html>")
    assert "not a complete zip" in complaint(read_contracts, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "")
    assert "found: readme.txt" in complaint(read_contracts, path)
    assert "Cannot read" in complaint(read_contracts, tmp_path / "absent.zip")


KEYS = st.sampled_from(["data", "title", "paragraphs", "context", "qas", "id", "question", "answers", "text"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner),
)


@settings(max_examples=60, deadline=None)
@given(JSON)
def test_no_json_value_raises_anything_but_input_error(value: object) -> None:
    for candidate in (
        value,
        {"data": [value]},
        {"data": [{"title": "A", "paragraphs": [value]}]},
        {"data": [document(value)]},
    ):
        try:
            contracts.parse_contracts(json.dumps(candidate).encode(), "own.json")
        except InputError:
            pass


def test_records_of_a_run_carry_a_contract_there_and_back(tmp_path: Path) -> None:
    (contract,) = read_contracts(write(tmp_path, document(question())))
    record = contract.record(group=3, split="dev")
    assert list(record) == ["title", "contract_type", "filer", "group", "split", "text"]
    assert Contract.from_record(record) == Contract(TITLE, TEXT, "Supply", "acme")
    assert "'filer'" in complaint(Contract.from_record, {"title": "A", "text": "B", "contract_type": ""})


def test_a_folder_of_files_becomes_contracts_without_rows(tmp_path: Path) -> None:
    (tmp_path / "b-SUPPLY AGREEMENT.TXT").write_bytes(b"\xef\xbb\xbfGoods are supplied to the buyer.")
    pdf(tmp_path / "a.pdf", "This Agreement is made in Ohio in 2020.")
    (tmp_path / ".hidden.txt").write_bytes(b"")
    first, second = read_plain_folder(tmp_path)
    assert (first.title, first.rows) == ("a", ()) and "made in Ohio" in first.text
    assert (second.text, second.contract_type) == ("Goods are supplied to the buyer.", "Supply")
    written = docx.Document()
    written.add_paragraph("The buyer pays within thirty days of delivery.")
    written.save(tmp_path / "c.docx")
    (tmp_path / "notes.odt").write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"notes\.odt"):
        found = read_plain_folder(tmp_path)
    assert [contract.title for contract in found] == ["a", "b-SUPPLY AGREEMENT", "c"]
    assert found[2].text == "The buyer pays within thirty days of delivery."


def test_every_unreadable_file_of_a_folder_is_named(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "absent"):
        assert f"{folder} is no folder with .pdf, .docx or .txt files" in complaint(read_plain_folder, folder)
    pdf(tmp_path / "scan.pdf", "")
    (tmp_path / "cut.pdf").write_bytes(
        pdf(tmp_path / "whole.pdf", "A contract of some twenty letters.").read_bytes()[:80]
    )
    (tmp_path / "empty.pdf").write_bytes(b"")
    (tmp_path / "binary.txt").write_bytes(b"a contract of twenty letters\0\1")
    (tmp_path / "blank.txt").write_bytes(b" \n")
    message = complaint(read_plain_folder, tmp_path)
    for told in (
        "scan.pdf has no text",
        "cut.pdf",
        "empty.pdf is empty",
        "binary.txt is binary",
        "blank.txt is empty",
    ):
        assert told in message


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a.txt", "a.TXT"):
        (tmp_path / name).write_text("words of a contract, twenty letters")
    if len(list(tmp_path.iterdir())) == 2:  # file systems that tell case apart
        assert "file name 'a' stands more than once" in complaint(read_plain_folder, tmp_path)


def test_locate_finds_files_folders_and_what_the_data_folder_holds(tmp_path: Path) -> None:
    inner = tmp_path / "CUAD_v1"
    inner.mkdir()
    path = write(inner, document(question()), name="CUAD_v1.json")
    assert locate_contracts("auto", tmp_path) == path
    assert (
        locate_contracts(str(tmp_path), tmp_path)
        == locate_contracts(str(inner), tmp_path)
        == locate_contracts(str(path), tmp_path)
        == path
    )
    for absent in ("", str(tmp_path / "no.json"), "smaple"):
        assert f"Invalid cuad {absent!r}" in complaint(locate_contracts, absent, tmp_path)


def test_locate_downloads_only_when_the_data_folder_has_no_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cuadft.data import download

    monkeypatch.setattr(download, "cuad_from_zenodo", lambda data_dir: data_dir / "fetched.zip")
    assert locate_contracts("auto", tmp_path) == tmp_path / "fetched.zip"


@pytest.mark.skipif(not contracts.sample_path().is_file(), reason="no packaged sample")
def test_the_packaged_sample_is_read(tmp_path: Path) -> None:
    sample = read_contracts(locate_contracts("sample", tmp_path))
    assert sample and all(contract.rows for contract in sample)


@needs_cuad
def test_the_real_data_has_the_counts_it_states() -> None:
    found = read_contracts(CUAD)
    rows = [row for contract in found for row in contract.rows]
    assert len(rows) == 41 * len(found)
    assert all(row["question"] == packaged_schema().categories[row["category"]].question for row in rows)
    assert all(contract.contract_type in cuad.CONTRACT_TYPES for contract in found)
    if len(found) == 450:  # 450 contracts of the 510: 18,450 questions, 5,927 answerable, 12,289 spans
        assert sum(not row["is_impossible"] for row in rows) == 5927
        assert sum(len(row["answers"]) for row in rows) == 12289
