"""The one DSPy program that every language model runs, the systems that a run compares, and their batch inference.

The search behind it is in `retrieval`; what an answer is worth is told in `evaluation`. For example, with `tiny`, a
random model for tests:

    (sft,) = rag.build_systems(it, ["sft"], model="tiny", embedder="sentence-transformers/all-MiniLM-L6-v2")
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "inference": ["answer_rows", "compare_answers"],
        "program": [
            "ContractQA",
            "PlainAdapter",
            "compile_program",
            "dspy_examples",
            "load_program",
            "prompt_completions",
            "save_program",
            "target_answer",
        ],
        "systems": ["build_systems", "start_weights"],
    },
)
