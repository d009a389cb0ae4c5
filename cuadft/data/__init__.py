"""Contracts and the questions asked of them: read, checked, cut into passages, split without leaks, drawn as rows.

New questions come from `selfinstruct`, and scores from `evaluation`. For example:

    contracts = data.read_contracts(data.locate_contracts("sample", "data"))
    contracts[0].rows[0]["question"]
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "arrivals": ["arrivals_table", "take_arrivals"],
        "contracts": ["Contract", "Row", "locate_contracts", "read_contracts", "read_plain_folder"],
        "cuad": ["CATEGORIES"],
        "passages": ["Passage", "cut_passages"],
        "rows": [
            "HELD_OUT",
            "add_plain_contracts",
            "arrived_contracts",
            "assert_no_leak",
            "contract_passages",
            "contract_records",
            "freeze_splits",
            "held_out_titles",
            "passages_by_contract",
            "read_rows",
            "refuse_arrivals",
            "remember_rows",
            "rows_of_contracts",
            "select_contracts",
            "split_titles",
            "spread_rows",
            "with_passages",
        ],
        "stream": ["cut_slices", "hold_out", "keep_slices", "slice_portion", "slice_rows", "slices_table"],
    },
)
