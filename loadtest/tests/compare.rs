//! The comparison as a user starts it, small: every server that is on this machine, real processes and sockets.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const LOADTEST: &str = env!("CARGO_BIN_EXE_loadtest");

/// A directory of this test, empty.
fn directory(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if path.exists() {
        std::fs::remove_dir_all(&path).expect("the directory is this test's own");
    }
    path
}

fn loadtest(arguments: &[&str]) -> Output {
    // Of the gateway there is what the workspace has built beside this test's binary.
    let gateway = Path::new(LOADTEST).with_file_name("kittiwake");
    let output = Command::new(LOADTEST).args(arguments).arg("--gateway").arg(gateway).output();
    output.expect("loadtest starts")
}

#[test]
fn every_server_that_is_here_delivers_everything_and_the_others_are_named_with_a_way_to_get_them() {
    let report = directory("compare");
    let output = loadtest(&[
        "compare",
        "--connections",
        "50",
        "--rounds",
        "1",
        "--stretch",
        "0.1",
        "--quiet",
        "--driver",
        "epoll",
        "--report",
        report.to_str().expect("a path of text"),
    ]);
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(report.join("result.json")).expect("the result is written");
    let result: Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(result["passed"], true);
    let found = &result["result"];
    let count = |name: &str| found[name].as_array().map_or(0, Vec::len);
    assert_eq!(count("targets") + count("missing"), 9, "every server is compared or named");
    for missing in found["missing"].as_array().into_iter().flatten() {
        println!("not here, so not tested: {missing}");
        assert!(missing["get"].as_str().is_some_and(|way| way.contains("install") || way.contains("build")));
    }
    if count("targets") == 0 {
        return;
    }
    assert_eq!((count("rows"), count("latencies")), (8, 2));
    for row in found["rows"].as_array().into_iter().flatten() {
        for cell in row["cells"].as_array().into_iter().flatten() {
            let known = cell["spread"]["median"].as_f64().is_some_and(|median| median >= 0.0);
            let cannot = ["no QoS", "its clients say nothing"].iter().any(|note| cell["note"] == *note);
            assert!(known || cannot, "{}: {cell}", row["title"]);
        }
    }
    for (file, start) in [("report.html", "<!DOCTYPE html>"), ("chart.svg", "<svg ")] {
        let text = std::fs::read_to_string(report.join(file)).expect("it is written");
        assert!(text.starts_with(start), "{file}");
    }
}

#[test]
fn a_list_says_what_is_missing_and_starts_nothing() {
    let output =
        loadtest(&["compare", "--list", "--program", "mosquitto=/nowhere/mosquitto", "--servers", "mosquitto"]);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("left out") && said.contains("apt-get install"), "{said}");
}
