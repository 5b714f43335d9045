"""No credential survives in the description of a run."""

from recu.tracking.redaction import redact_description


def test_every_free_text_of_a_description(monkeypatch, description):
    from dataclasses import asdict, replace

    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter22")
    leaky = replace(
        description,
        run_name="run hunter22",
        params={"uri": "https://a:b@c"},
        tags={"note": "hunter22"},
        dataset=replace(description.dataset, source="https://x:hunter22@data"),
    )
    assert "hunter22" not in repr(asdict(redact_description(leaky)))
    assert "a:b" not in repr(asdict(redact_description(leaky)))
