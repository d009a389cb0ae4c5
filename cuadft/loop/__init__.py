"""The loop over iterations: stages, skipping and resuming, records of what made what, the gate, and trackers.

It runs notebooks and never does their work: every step of theirs is in another room. For example:

    loop.run("params/smoke.yaml", iterations=2)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "criteria": ["GateRule"],
        "gate": ["decide_champion", "decision_paragraph", "decision_table", "promote"],
        "lineage": ["open_iteration"],
        "runner": ["StageFailed", "run", "run_stage"],
        "status": ["run_status"],
        "trackers": ["check_trackers", "report_to_trackers"],
        "verify": ["verify_run"],
    },
)
