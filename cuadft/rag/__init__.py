"""The one DSPy program that every language model runs, the systems that a run compares, and their batch inference.

The search behind it is in `retrieval`; what an answer is worth is told in `evaluation`. For example, with `tiny`, a
random model for tests:

    (sft,) = rag.build_systems(it, ["sft"], model="tiny", embedder="sentence-transformers/all-MiniLM-L6-v2")
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "confidence": ["Confidence", "load_confidence", "save_confidence"],
        "detection": ["decided", "feature_worth", "learning_curve"],
        "inference": ["answer_rows", "calibrate", "compare_answers"],
        "compiling": ["compile_program", "compiling_lm", "dspy_examples"],
        "program": ["ContractQA", "PlainAdapter", "load_program", "save_program"],
        "systems": ["build_systems", "start_weights"],
        "training_rows": ["prompt_completions", "target_answer"],
    },
)
