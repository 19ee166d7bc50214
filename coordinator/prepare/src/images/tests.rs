use super::*;
use image::{ExtendedColorType, ImageEncoder, codecs};
use serde_json::{Value, json};
use std::fs;

const SHAPE: ImageShape = ImageShape { channels: 3, height: 2, width: 4, patch_height: 2, patch_width: 2 };

/// A folder with a preprocessor_config.json of `changes` to one that only reads.
fn folder(changes: &Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut config = json!({"do_resize": false, "do_rescale": false, "do_normalize": false});
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    fs::write(dir.path().join("preprocessor_config.json"), config.to_string()).unwrap();
    dir
}

fn plain(shape: ImageShape) -> Preprocessor {
    Preprocessor::read(folder(&json!({})).path(), shape).unwrap()
}

fn png(path: &Path, levels: &[u8], [height, width]: [u32; 2], kind: ExtendedColorType) {
    let mut bytes = Vec::new();
    codecs::png::PngEncoder::new(&mut bytes).write_image(levels, width, height, kind).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn files_become_planes_and_places() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.png");
    let colours: Vec<u8> = (0..24).collect();
    png(&file, &colours, [2, 4], ExtendedColorType::Rgb8);
    let item = plain(SHAPE).item(&file).unwrap();
    assert_eq!(item.tokens, [0, 1, 2], "the CLS token and two patches");
    let levels = |item: Item| item.image.unwrap().levels;
    let red: Vec<u8> = (0..24).step_by(3).collect();
    assert_eq!(levels(item)[..8], red);
    // What is transparent keeps its colour; a gray image is three times the same.
    let seen: Vec<u8> = colours.chunks(3).flat_map(|c| [c[0], c[1], c[2], 0]).collect();
    png(&file, &seen, [2, 4], ExtendedColorType::Rgba8);
    assert_eq!(levels(plain(SHAPE).item(&file).unwrap())[..8], red);
    png(&file, &red, [2, 4], ExtendedColorType::L8);
    assert_eq!(levels(plain(SHAPE).item(&file).unwrap()), [red.clone(), red.clone(), red.clone()].concat());
    let gray = ImageShape { channels: 1, ..SHAPE };
    assert_eq!(levels(plain(gray).item(&file).unwrap()), red);
}

#[test]
fn what_is_no_image_of_the_right_kind_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.png");
    let says = |shape, what: &str| {
        let e = plain(shape).item(&file).unwrap_err();
        assert!(e.contains(what) && e.contains("a.png"), "{e}");
    };
    says(SHAPE, "No such file");
    fs::write(&file, "no image at all").unwrap();
    says(SHAPE, "neither a PNG nor a JPEG");
    fs::write(&file, b"GIF89a\x01\x00\x01\x00").unwrap();
    says(SHAPE, "neither a PNG nor a JPEG");
    let colours: Vec<u8> = (0..24).collect();
    png(&file, &colours, [4, 2], ExtendedColorType::Rgb8);
    says(SHAPE, "it has 4 x 2 pixels (height x width), but the model takes 2 x 4");
    png(&file, &colours, [2, 4], ExtendedColorType::Rgb8);
    says(ImageShape { channels: 1, ..SHAPE }, "it has colours, but the model takes gray images");
    let whole = fs::read(&file).unwrap();
    for end in [12, 40, whole.len() - 20] {
        fs::write(&file, &whole[..end]).unwrap();
        says(SHAPE, "it is damaged");
    }
    let mut flipped = whole.clone();
    let middle = whole.len() - 20;
    flipped[middle] ^= 0x55;
    fs::write(&file, flipped).unwrap();
    says(SHAPE, "it is damaged");
    let deep: Vec<u8> = (0..16).collect();
    png(&file, &deep, [2, 4], ExtendedColorType::L16);
    says(SHAPE, "L16 levels aren't supported; save it with 8 bits");
    // A header that promises a million by a million pixels.
    let mut vast = whole;
    vast[16..24].copy_from_slice(&[0, 15, 66, 64, 0, 15, 66, 64]);
    fs::write(&file, vast).unwrap();
    assert!(plain(SHAPE).item(&file).is_err());
}

#[test]
fn a_jpeg_file_that_ends_early_or_has_four_inks_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("a.jpg");
    let mut whole = Vec::new();
    let colours: Vec<u8> = (0..24).map(|n| n * 10).collect();
    codecs::jpeg::JpegEncoder::new(&mut whole).write_image(&colours, 4, 2, ExtendedColorType::Rgb8).unwrap();
    fs::write(&file, &whole).unwrap();
    assert_eq!(plain(SHAPE).item(&file).unwrap().image.unwrap().levels.len(), 24);
    for end in [20, whole.len() / 2, whole.len() - 2] {
        fs::write(&file, &whole[..end]).unwrap();
        let e = plain(SHAPE).item(&file).unwrap_err();
        assert!(e.contains("it is truncated"), "{end}: {e}");
    }
    let frame = whole.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    let mut inks = whole;
    inks[frame + 9] = 4;
    fs::write(&file, &inks).unwrap();
    assert!(plain(SHAPE).item(&file).unwrap_err().contains("4 colour components"));
}

#[test]
fn images_lie_below_their_data() {
    let dir = tempfile::tempdir().unwrap();
    let (inside, outside) = (dir.path().join("data"), dir.path().join("secret.png"));
    fs::create_dir_all(inside.join("more")).unwrap();
    fs::write(&outside, "x").unwrap();
    fs::write(inside.join("more/a.png"), "x").unwrap();
    assert_eq!(located(&inside, "./more/a.png").unwrap(), inside.join("./more/a.png"));
    let absolute = outside.display().to_string();
    for name in ["../secret.png", "more/../../secret.png", "more/../more/a.png", absolute.as_str(), ""] {
        let e = located(&inside, name).unwrap_err();
        assert!(e.contains("should be a path relative to the data file's folder"), "{name}: {e}");
    }
    assert!(located(&inside, "b.png").unwrap_err().contains("b.png: No such file"));
    std::os::unix::fs::symlink(&outside, inside.join("link.png")).unwrap();
    assert!(located(&inside, "link.png").unwrap_err().contains("leads out of the data file's folder"));
    std::os::unix::fs::symlink(inside.join("more/a.png"), inside.join("near.png")).unwrap();
    assert!(located(&inside, "near.png").is_ok());
}

#[test]
fn what_a_processor_does_is_understood_or_refused_by_name() {
    let read = |changes: Value, shape| Preprocessor::read(folder(&changes).path(), shape);
    let says = |changes: Value, what: &str| {
        let e = read(changes.clone(), SHAPE).unwrap_err();
        assert!(e.exit_code() == 2 && e.to_string().contains(what), "{changes}: {e}");
        assert!(e.to_string().contains("preprocessor_config.json: "), "{e}");
    };
    says(json!({"image_processor_type": "CLIPImageProcessor"}), "\"CLIPImageProcessor\" isn't supported");
    says(json!({"do_center_crop": true}), "do_center_crop = true isn't supported");
    says(json!({"do_flip_channel_order": 1}), "do_flip_channel_order = 1");
    says(json!({"do_resize": "yes"}), "do_resize should be true or false");
    says(
        json!({"do_resize": true}),
        "size is 224 x 224 (height x width), but the model's image_size is 2 x 4",
    );
    says(
        json!({"do_resize": true, "size": {"shortest_edge": 2}}),
        "isn't supported (supported: height and width",
    );
    let size = json!({"height": 2, "width": 4});
    says(json!({"do_resize": true, "size": size, "resample": 6}), "resample = 6 isn't supported");
    says(json!({"do_rescale": true, "rescale_factor": "1"}), "rescale_factor should be a number");
    says(json!({"do_normalize": true, "image_mean": [0.5]}), "image_mean has 1 numbers");
    says(json!({"do_normalize": true, "image_std": [1, 0, 1]}), "image_std has a 0");
    let none = tempfile::tempdir().unwrap();
    let e = Preprocessor::read(none.path(), SHAPE).unwrap_err().to_string();
    assert!(
        e.contains("preprocessor_config.json: No such file") && e.contains("put it beside config.json"),
        "{e}"
    );

    let usual = json!({"do_resize": true, "size": size, "do_rescale": null, "do_normalize": null,
        "feature_extractor_type": "ViTFeatureExtractor", "do_center_crop": false});
    let usual = read(usual, SHAPE).unwrap();
    assert_eq!(usual.filter, Some(Filter::Bilinear));
    assert_eq!((usual.scaling.factor, usual.scaling.mean.as_slice()), (Some(1.0 / 255.0), &[0.5; 3][..]));
    let square = ImageShape { height: 4, ..SHAPE };
    let one = read(json!({"do_resize": true, "size": 4, "do_normalize": true, "image_mean": 0.25}), square)
        .unwrap();
    assert_eq!((one.scaling.factor, one.scaling.mean), (None, vec![0.25; 3]));
}

#[test]
fn a_task_has_a_limit_of_images() {
    let vit = ImageShape { channels: 3, height: 224, width: 224, patch_height: 16, patch_width: 16 };
    assert!(plain(vit).bounded(1783).is_ok());
    let e = plain(vit).bounded(1784).unwrap_err();
    assert!(e.contains("1784 images of 3 x 224 x 224") && e.contains("set examples = 1783"), "{e}");
}
