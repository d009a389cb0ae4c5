"""Language models: where weights are found, the batched local model, API models, and what a stage used of them.

Training lives in `training`; prompts live in `rag`. For example, a local model that DSPy can call:

    lm = models.LocalEngine(models.find_weights("HuggingFaceTB/SmolLM2-135M-Instruct")).lm(max_tokens=48)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "api": ["remote"],
        "local": ["LocalEngine", "token_counter"],
        "usage": ["usage_report"],
        "weights": ["cache_dir", "find_weights"],
    },
)
