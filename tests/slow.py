"""Which tests are slow: `make check` leaves them out, `make test` runs them."""

# What makes a test slow: a fixture, or a file whose tests train, run notebooks in kernels, or start browsers, servers
# or trackers. A test of another file marks itself with pytest.mark.slow.
SLOW_FIXTURES = {"smoke", "tiny", "chromium", "lab"}
SLOW_FILES = """
    evaluation/test_judge_cache.py feedback/test_browser.py feedback/test_candidates.py feedback/test_preferences.py
    loop/test_ablation.py loop/test_kernel_lock.py loop/test_kernel_memory.py loop/test_manifest.py loop/test_runner.py
    loop/test_trackers.py loop/test_unseen.py loop/test_verify.py models/test_api_faults.py rag/test_inference.py
    retrieval/test_embedder.py retrieval/test_finetune.py retrieval/test_report.py training/test_align.py
    training/test_online.py training/test_ppo.py training/test_sft.py
""".split()
