from jaxdiff.run import load_run


def test_tiny(tiny_run):
    run = load_run(tiny_run)
    assert run.name == "diffuser"
