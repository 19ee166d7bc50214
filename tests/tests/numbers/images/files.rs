//! Image files, against Pillow.

use super::{image, made};
use ablate_common::model::inspect;
use ablate_prepare::images::{Filter, Preprocessor, resize};
use serde::Deserialize;

#[derive(Deserialize)]
struct Resized {
    levels: Vec<u8>,
    from: [u32; 2],
    to: [u32; 2],
    filter: u64,
    new: Vec<u8>,
}

#[test]
fn resampling_gives_pillows_levels() {
    let text = std::fs::read(made().join("resized.json")).unwrap();
    let all: Vec<Resized> = serde_json::from_slice(&text).unwrap();
    assert_eq!(all.len(), 9 * 2 * 6);
    for r in all {
        let filter = Filter::numbered(r.filter).unwrap();
        let got = resize(&r.levels, r.from, r.to, filter);
        let off = got.iter().zip(&r.new).filter(|(a, b)| a != b).count();
        assert!(got.len() == r.new.len() && off == 0, "{filter:?} {:?} to {:?}: {off} differ", r.from, r.to);
    }
}

/// JPEG leaves its decoders some freedom: what is read lies within a few levels of what Pillow reads.
#[test]
fn a_jpeg_file_is_read_almost_as_pillow_does() {
    for (model, file) in [("plain", "photo"), ("gray", "gray"), ("plain", "gray")] {
        let path = made().join(model);
        let shape = inspect(&path).unwrap().info.details.image.unwrap();
        let preprocessor = Preprocessor::read(&path, shape).unwrap();
        let [own, pillows] = [format!("{file}.jpg"), format!("{file}-decoded.png")]
            .map(|name| preprocessor.item(&image(&name)).unwrap().image.unwrap().levels);
        let off: Vec<u8> = own.iter().zip(&pillows).map(|(a, b)| a.abs_diff(*b)).collect();
        let worst = off.iter().max().unwrap();
        let equal = off.iter().filter(|d| **d == 0).count() as f64 / off.len() as f64;
        println!("{file}.jpg for {model}: worst {worst}, equal {equal:.3}");
        assert!(*worst <= 3, "{file}.jpg for {model}: {worst} levels apart");
    }
}

#[test]
fn files_of_other_kinds_are_refused() {
    let path = made().join("plain");
    let shape = inspect(&path).unwrap().info.details.image.unwrap();
    let preprocessor = Preprocessor::read(&path, shape).unwrap();
    for (name, what) in [
        ("frames.gif", "neither a PNG nor a JPEG file"),
        ("inks.jpg", "4 colour components"),
        ("deep.png", "save it with 8 bits a channel"),
        ("turned.jpg", "its EXIF data say that it is to be turned"),
    ] {
        let e = preprocessor.item(&image(name)).unwrap_err();
        assert!(e.contains(what) && e.contains(name), "{e}");
    }
}
