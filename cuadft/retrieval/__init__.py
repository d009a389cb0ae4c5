"""Find the passages of a contract that answer a question: index, search, its training, its choice and its measures.

It returns passages and never an answer: that is the business of `rag`. For example:

    hits = retrieval.Retriever(passages, None, mode="bm25").search("Which law governs?", contract=title, k=3)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "classifier": ["ClauseClassifier", "Matcher"],
        "embedder": ["Embedder"],
        "finetune": ["DevHits", "finetune_embedder"],
        "measure": [
            "decide_retriever",
            "evaluate_retriever",
            "intervals_as_text",
            "measure_retrievers",
            "retrieval_intervals",
            "search_table",
        ],
        "relevance": ["RelevanceFeedback"],
        "retriever": ["Hit", "Retriever"],
        "store": [
            "champion_folder",
            "champion_retriever",
            "load_reranker",
            "load_retriever",
            "reranker_of",
            "save_retriever",
            "take_in",
        ],
        "triples": ["make_triples"],
    },
)
