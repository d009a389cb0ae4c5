"""New training questions: what they are made from, who writes them, and the filters that they must pass.

Only training contracts are ever read here; which contracts these are is decided in `data`. For example:

    with dspy.context(lm=lm, adapter=rag.PlainAdapter()):
        accepted, rejected = selfinstruct.filter_questions(candidates, train_rows, embedder=embedder)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "filters": ["filter_questions", "outcomes", "steps_table"],
        "generate": ["write_questions"],
        "own": ["place_own_questions", "read_own_questions"],
        "templates": ["paraphrases", "phrased_questions"],
    },
)
