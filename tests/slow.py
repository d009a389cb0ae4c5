"""Which tests are slow: `make check` leaves them out, `make test` runs them."""

# What makes a test slow: a fixture, or a file whose tests train, run notebooks in kernels, start browsers, servers or
# trackers, or draw and compare for many seconds. A test of another file marks itself with pytest.mark.slow.
SLOW_FIXTURES = {"smoke", "tiny", "chromium", "lab"}
SLOW_FILES = """
    data/test_splits.py evaluation/test_calibration.py evaluation/test_confidence_scores.py
    evaluation/test_constants.py evaluation/test_evidence.py evaluation/test_figures_stream.py
    evaluation/test_judge_cache.py evaluation/test_official.py evaluation/test_score.py feedback/test_browser.py
    feedback/test_candidates.py feedback/test_preferences.py loop/test_gate.py loop/test_kernel_lock.py
    loop/test_kernel_memory.py loop/test_manifest.py loop/test_run_comparison.py loop/test_runner.py
    loop/test_trackers.py loop/test_unseen.py loop/test_verify.py loop/test_warm_kernels.py models/test_api.py
    models/test_api_faults.py rag/test_inference.py rag/test_settle.py retrieval/test_embedder.py
    retrieval/test_finetune.py review/test_export.py review/test_export_gguf.py review/test_serve.py
    review/test_serve_browser.py training/test_align.py training/test_online.py training/test_ppo.py
    training/test_sft.py
""".split()
