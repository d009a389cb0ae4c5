"""Training with TRL and PEFT: supervised fine-tuning, preference methods and online RL, each resumable after a kill.

The rows to train on are made in `rag` and `feedback`; the embedder is trained in `retrieval`. For example, with
`tiny`, a random model for tests:

    training.train_sft(base, "tiny", rows, it.path("adapters", "sft"), tuning=training.Tuning(learning_rate=1e-3))
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "align": ["AlignSettings", "align_at_rates", "learns_from", "with_steps"],
        "online": ["Sampling", "reward_function"],
        "resume": ["trained_rows"],
        "sft": ["Tuning", "train_sft"],
    },
)
