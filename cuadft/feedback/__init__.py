"""What people and judges prefer: the store of judgements, the widget, import and export, and preference data.

Training on the preferences happens in `training`. For example:

    store = feedback.Store(it.run / "feedback.sqlite")
    feedback.Annotate(tasks, store, "Ann")
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "agreement": ["annotator_agreement", "annotator_disagreements"],
        "candidates": ["draw_candidate_rows", "sample_candidates", "with_prompts"],
        "headroom": ["choose_rates", "headroom_rows", "headroom_sentence", "measure_headroom"],
        "preferences": ["length_report", "training_data"],
        "store": ["Store"],
        "tasks": ["choose_tasks"],
        "widget": ["Annotate"],
    },
)
