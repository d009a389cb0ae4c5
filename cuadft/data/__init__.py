"""Contracts and the questions asked of them: read, checked, cut into passages, split without leaks, drawn as rows.

New questions come from `selfinstruct`, and scores from `evaluation`. For example:

    contracts = data.read_contracts(data.locate_contracts("sample", "data"))
    contracts[0].rows[0]["question"]
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "arrivals": ["arrivals_table"],
        "contracts": ["locate_contracts", "read_contracts"],
        "cuad": ["is_official_test"],
        "documents": ["read_documents"],
        "rows": [
            "HELD_OUT",
            "assert_no_leak",
            "contract_passages",
            "contract_records",
            "freeze_splits",
            "held_out_titles",
            "is_original",
            "passages_by_contract",
            "questions_table",
            "read_rows",
            "remember_rows",
            "select_contracts",
            "spread_rows",
            "unannotated_contracts",
        ],
        "schema": ["read_schema", "run_schema", "save_schema"],
        "stream": ["next_slice", "question_sets", "slices_table"],
        "splits": ["SPLIT_SEED", "largest_overlap", "relatives_in_training"],
    },
)
