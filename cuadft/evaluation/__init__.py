"""How good answers are and how sure that is: scores, judges, intervals, paired tests, published results, figures.

It takes predictions as plain rows and runs no system itself; whether a search finds a clause is measured in
`retrieval`. For example:

    predictions, left_out = evaluation.read_with_seeds(it, seed=7)  # it: an iteration of a run
    frame = evaluation.score_predictions(predictions)
    board = evaluation.make_scoreboard(frame, n_resamples=2000, seed=7, confidence=0.95)
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "calibration": ["judge_agreement"],
        "constants": ["constant_answers"],
        "compare": ["beyond_controls", "comparisons", "paired_deltas"],
        "confidence": ["calibration_table", "operating_points", "reliability", "risk_coverage"],
        "official": ["cuad_scores", "official_table", "setup_differences"],
        "drift": ["drift_sentence", "measure_drift"],
        "examples": [
            "answers_with_probabilities",
            "change_counts",
            "changed_answers",
            "pick_changes",
            "pick_worst",
            "show_answers",
        ],
        "figures.confidence": ["confidence_figure"],
        "figures.published": ["official_figure", "published_figure"],
        "figures.scores": [
            "PANELS",
            "deltas_figure",
            "heatmap_figure",
            "loss_figure",
            "panels_figure",
            "retrieval_figure",
            "search_figure",
        ],
        "figures.stream": ["iterations_figure", "slices_figure"],
        "figures.training": ["alignment_figure", "likelihood_changes"],
        "forgetting": ["collect_stream_scores", "slice_before_after", "slice_transfer"],
        "judge": ["LMJudge", "flip_rate"],
        "metrics": ["HEADLINE", "METRICS", "score_predictions"],
        "offline_judge": ["OfflineJudge"],
        "results": ["read_with_seeds", "save", "with_intervals"],
        "published": ["recompute_published"],
        "scoreboard": ["fault_counts", "make_scoreboard", "score_breakdown"],
        "verdicts": ["judge_answers"],
        "text_scores": ["NO_CLAUSE", "is_refusal"],
    },
)
