"""Find the passages of a contract that answer a question: index, search, its training, its choice and its measures.

It returns passages and never an answer: that is the business of `rag`. For example:

    hits = retrieval.Retriever(passages, None, mode="bm25").search("Which law governs?", contract=title, k=3)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "classifier": ["fit_classifier"],
        "embedder": ["Embedder"],
        "finetune": ["train_embedder"],
        "measure": ["choose_search", "measure_retrievers", "retrieval_intervals"],
        "relevance": ["RelevanceFeedback"],
        "retriever": ["Retriever"],
        "saved": ["champion_retriever", "load_retriever", "promote_or_keep", "save_retriever"],
        "triples": ["mine_triples"],
    },
)
