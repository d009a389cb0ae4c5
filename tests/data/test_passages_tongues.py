"""Passages, sentences and places in other languages than English: exact, of the size asked, never inside a letter."""

from __future__ import annotations

import unicodedata

import pytest
import tongues
from hypothesis import example, given
from hypothesis import strategies as st

from cuadft.data.passages import cut_passages, cut_sentences, locate_words
from cuadft.data.splits import near_duplicates

MIXED = st.text(
    st.sampled_from(
        "aß ÄéñZ.9\n“„«»¿¡§€租期三年。！？；，、：「」《》（）１Ａ\u3000カーがสัญญำनियमू\u0301\u200d😀한글؟عقد"
    ),
    max_size=300,
)


def texts_of(pieces):
    return [piece.text for piece in pieces]


@given(MIXED, st.integers(1, 120), st.sampled_from([0, 0.25, 0.5]))
@example("甲方应当支付服务费用" * 60, 80, 0)
@example("สัญญาเช่าที่ดินฉบับนี้" * 40, 50, 0.5)
@example("e\u0301" * 400, 51, 0)
@example("👩\u200d👧" * 99, 50, 0)
def test_joined_passages_are_the_text_and_no_cut_parts_a_letter_from_its_marks(text, size, overlap):
    passages = cut_passages(text, size=max(size, 4), overlap=overlap)
    assert {n for p in passages for n in range(p.start, p.end)} == set(range(len(text)))
    assert all(text[p.start : p.end] == p.text for p in passages)
    for passage in passages:
        before, after = text[: passage.start], passage.text
        far = any(unicodedata.category(c)[0] != "M" and c != "\u200d" for c in before[-3:])  # marks alone can't be kept
        if before and far and size > 9:
            assert unicodedata.category(after[0])[0] != "M" and "\u200d" not in (before[-1], after[0])


@pytest.mark.parametrize("contract", tongues.CONTRACTS, ids=lambda contract: contract.title)
@pytest.mark.parametrize("size", [200, 400])
def test_a_foreign_document_is_cut_near_the_size_asked_at_ends_of_sentences(contract, size):
    passages = cut_passages(contract.text, size=size)
    assert "".join(texts_of(passages)) == contract.text
    assert all(0.6 * size <= len(text) <= 1.25 * size for text in texts_of(passages)[:-1])
    stops = [text.rstrip()[-1] for text in texts_of(passages)]
    # the others are names, headings and list items, and sentences as long as a passage
    assert sum(stop in ".!?;:。！？；：”“»」）" for stop in stops) >= 0.6 * len(stops)


def test_a_text_without_blanks_is_cut_into_passages_of_the_size_asked():
    for text in ("甲方应当按照约定支付服务费用" * 300, "第一条 " + "甲方应当按照约定支付服务费用" * 300):
        assert {len(p) for p in texts_of(cut_passages(text, size=800))[:-1]} == {800}
    listed = cut_passages("甲方应当按照约定，支付服务费用" * 300, size=800)
    assert all(text.endswith("，") and 640 <= len(text) <= 1000 for text in texts_of(listed)[:-1])


@pytest.mark.parametrize(
    "sentences",
    [
        [
            "Die Miete beträgt bis zum 31. Dezember 2026 monatlich 1.000,50 €. ",
            "Sie kann z. B. nach § 5 Abs. 2 Satz 1 oder ggf. Anlage 2 gemindert werden, d. h. anteilig. ",
            "Übergeben wird am 15. März eines jeden Jahres die „Abrechnung“. ",
            "„Mieter“ ist i. S. d. Vertrages auch, wer gem. Absatz 3 eintritt.",
        ],
        [
            "¿Quién es el responsable del tratamiento de los datos? ",
            "La empresa «Río Claro, S.A. de C.V.», con domicilio en Sevilla. ",
            "¡Nunca vendemos los datos personales a terceros! ",
            "Él o su representante podrá ejercer sus derechos. ",
            "«Titular» significa la persona a quien se refieren los datos.",
        ],
        [
            "甲方应当于每月十日前支付租金，共计人民币12,000元；",
            "逾期支付的，应当按日支付违约金。",
            "乙方是否可以把房屋转租给别人？",
            "不可以，但甲方书面同意的除外！",
            "本合同适用「中华人民共和国法律」。",
            "双方各执一份，自签字之日起生效",
        ],
        [
            "合同标的为一套设备,型号见附件清单.",
            "总价款为人民币八十万元整;",
            "3日内交货的给予百分之二的折扣!",
            "双方可以另行签订补充协议",
        ],
        [
            "Nach § 312 ff. BGB beträgt der Zinssatz höchstens 5 %. ",
            "Maßgeblich ist jeweils der amtliche ‚Basiszinssatz‘. ",
            "Äußert sich der Mieter nicht, so gilt die Anpassung als angenommen.",
        ],
        ["यह अनुबंध भारत के कानूनों द्वारा शासित होगा। ", "कोई भी पक्ष तीस दिन की सूचना पर इसे समाप्त कर सकता है।"],
        [
            "يخضع هذا العقد لقوانين جمهورية مصر العربية. ",
            "هل يجوز لأحد الطرفين إنهاء العقد قبل موعده؟ ",
            "نعم، بموجب إشعار كتابي.",
        ],
    ],
)
def test_sentences_end_where_a_reader_of_the_language_ends_them(sentences):
    assert texts_of(cut_sentences("".join(sentences))) == sentences


def test_a_long_chinese_sentence_is_cut_behind_a_mark_and_no_letter_is_lost():
    text = "双方应当遵守下列约定，" * 200
    pieces = texts_of(cut_sentences(text))
    assert "".join(pieces) == text and len(pieces) > 2 and all(piece.endswith("，") for piece in pieces)


def test_words_of_a_script_without_blanks_are_found_inside_a_run_and_across_lines():
    text = "合同在深圳市\n南山区签订，共30日，编号130。"
    assert text[slice(*locate_words("深圳市南山区", text))] == "深圳市\n南山区"
    assert text[slice(*locate_words("深圳市 南山区", text.replace("\n", "")))] == "深圳市\n南山"
    assert locate_words("30", text) == [text.index("30"), text.index("30") + 2]
    assert locate_words("13", text) == [] == locate_words("深圳县", text)
    assert locate_words("अनु", "अनुबंध") == []  # a vowel sign goes on with the word


@pytest.mark.parametrize("contract", tongues.CONTRACTS, ids=lambda contract: contract.title)
def test_every_gold_span_is_located_in_its_document_as_it_stands(contract):
    for span in (span for row in contract.rows for span in row["answers"]):
        assert contract.text[slice(*locate_words(span["text"], contract.text))] == span["text"]


def test_a_chinese_document_and_its_copy_with_other_names_are_relatives_and_no_others():
    copy = tongues.SERVICES.text.replace("甲方", "委托人").replace("乙方", "受托人").replace("２０２６", "２０２７")
    texts = [contract.text for contract in tongues.CONTRACTS]
    assert near_duplicates([*texts, copy]) == [(tongues.CONTRACTS.index(tongues.SERVICES), len(texts))]
