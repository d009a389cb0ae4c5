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
        "calibration": ["calibration_markdown", "calibration_report", "escaped"],
        "constants": ["constant_answers"],
        "compare": ["comparisons", "paired_deltas"],
        "confidence": ["calibration_table", "operating_points", "reliability", "risk_coverage"],
        "official": ["cuad_scores", "official_table", "setup_differences"],
        "drift": ["drift_sentence", "measure_drift"],
        "examples": ["changed_answers", "pick_worst", "show_changes", "show_worst", "worst_texts"],
        "figures.confidence": ["confidence_figure"],
        "figures.judges": ["published_figure"],
        "figures.official": ["official_figure"],
        "figures.scores": [
            "PANELS",
            "benchmark_figure",
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
        "probable_answers": ["answers_with_probabilities", "show_probabilities"],
        "results": ["read_with_seeds", "save", "with_intervals"],
        "published": ["faulty_systems", "recompute_published"],
        "scoreboard": ["fault_counts", "make_scoreboard", "score_breakdown"],
        "verdicts": ["judge_answers"],
        "text_scores": ["NO_CLAUSE", "is_refusal"],
    },
)
