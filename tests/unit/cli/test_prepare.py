"""`recu prepare`."""


def test_prepares_once_and_copies_the_manifest(recu):
    words = ["prepare", "tiny", "--source", recu.project / "images", "--params_dir", recu.project / "params"]
    assert recu(*words, "--workers", 1, "--output", "results/prepare/tiny/manifest.json") == 0, recu.err
    assert "Tiny: 48 train images, 18 test images, 6 classes" in recu.out
    manifest = recu.json("results/prepare/tiny/manifest.json")
    assert manifest["fingerprint"] == recu.json("data/tiny/manifest.json")["fingerprint"]
    images = recu.folder / "data/tiny/train_images.npy"
    before = images.stat().st_mtime_ns
    assert recu(*words) == 0
    assert images.stat().st_mtime_ns == before


def test_an_unknown_dataset_proposes_the_nearest(recu):
    assert recu("prepare", "tinny", "--params_dir", recu.project / "params") == 2
    assert "did you mean 'tiny'?" in recu.error()


def test_batch_sizes_are_checked_once_the_images_are_counted(recu):
    words = ["prepare", "tiny", "--source", recu.project / "images", "--params_dir", recu.project / "params"]
    output = ["--output", "manifest.json"]
    assert recu(*words, *output, "--batch_sizes", "tiny:16", "other:47") == 0, recu.err
    assert recu(*words, "--batch_sizes", "tiny:16", "tiny:47") == 2
    assert "batch_size: 47 leaves one of 48 training images" in recu.error()
    assert recu(*words, "--batch_sizes", "47") == 2
    assert "--batch_sizes 47: expected DATASET:N" in recu.error()
