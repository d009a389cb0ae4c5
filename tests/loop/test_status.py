"""The headline of a run's status: quotes with detection beside them."""

import pytest

from cuadft.core import files, runs
from cuadft.loop import lineage, status

BOARD = """system,split,metric,value,low,high,n
rag,test,quote_f1,0.4,0.25,0.5,12
rag,test,detection_f1,0.61,0.5,0.7,12
rag,dev,quote_f1,0.9,,,3
always_refuses,test,quote_f1,0.0,0.0,0.2,12
rag,test,f1,0.77,,,40
sft,test,quote_f1,,,,0
"""


@pytest.fixture
def run(tmp_path):
    lineage.describe_run(tmp_path, preset=None)
    return runs.Iteration(tmp_path, 1)


def shown(iteration, board):
    files.write_text(iteration.path("scoreboard.csv"), board)
    return [line.strip() for line in status.run_status(iteration.run).splitlines() if "f1" in line]


def test_each_system_of_test_has_its_quotes_and_detection(run):
    files.write_text(run.path("scoreboard.csv"), BOARD)
    head, rag, refuses, sft = status.run_status(run.run).splitlines()[-4:]
    assert head.split() == ["on", "test", "quote_f1", "detection_f1"]
    assert " ".join(rag.split()) == "rag 0.400 [0.250, 0.500] n=12 0.610 [0.500, 0.700] n=12"
    assert " ".join(refuses.split()) == "always_refuses 0.000 [0.000, 0.200] n=12 not measured"
    assert sft.split() == ["sft", "not", "measured", "not", "measured"]


def test_a_board_without_test_rows_has_no_headline(run):
    assert shown(run, "system,split,metric,value,low,high,n\nrag,dev,quote_f1,0.9,,,3\n") == []
