//! The files of the page. They are part of the program: there is nothing to install, and nothing to get out of step.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// One file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asset {
    /// Path under `dashboard/`.
    pub name: &'static str,
    /// Its contents.
    pub bytes: &'static [u8],
}

/// Makes the table of files, each read when the program is built.
macro_rules! assets {
    ($($name:literal)+) => {
        const ASSETS: &[Asset] =
            &[$(Asset { name: $name, bytes: include_bytes!(concat!("../../dashboard/", $name)) }),+];
    };
}

assets! {
    "app.css"
    "app.js"
    "icon.svg"
    "lib/api.js"
    "lib/charts.js"
    "lib/dom.js"
    "lib/format.js"
    "lib/live.js"
    "lib/words.js"
    "pages/feeds.js"
    "pages/log.js"
    "pages/login.js"
    "pages/overview.js"
    "pages/pools.js"
    "pages/proxies.js"
    "pages/proxy.js"
    "vendor/uplot/uPlot.css"
    "vendor/uplot/uPlot.js"
}

/// The page itself. `{root}` in it stands for the way up to where the service is.
const INDEX: &str = include_str!("../../dashboard/index.html");

impl Asset {
    /// The media type, by the ending.
    pub fn media_type(&self) -> &'static str {
        match self.name.rsplit('.').next() {
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            _ => "application/octet-stream",
        }
    }

    /// An entity tag: another one when the contents are others.
    pub fn etag(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.bytes.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    }
}

/// The file at `path` under `/dashboard/`.
pub fn asset(path: &str) -> Option<Asset> {
    ASSETS.iter().copied().find(|asset| asset.name == path)
}

/// The page as it is served at `path`. All its links are relative, so that it works behind a prefix that we know nothing
/// of, and from any path that leads to it.
pub fn index(path: &str) -> String {
    let depth = path.bytes().skip(1).filter(|byte| *byte == b'/').count();
    INDEX.replace("{root}", &"../".repeat(depth))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    fn folder() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboard")
    }

    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { files(&path, found) } else { found.push(path) }
        }
    }

    #[test]
    fn every_file_of_the_page_is_in_the_program() {
        let mut found = Vec::new();
        files(&folder(), &mut found);
        let names =
            found.iter().map(|path| path.strip_prefix(folder()).unwrap().to_str().unwrap().to_owned());
        let not_served =
            ["index.html", "vendor/uplot/LICENSE", "vendor/uplot/SHA256SUMS", "vendor/uplot/README.md"];
        let served: BTreeSet<String> = names.filter(|name| !not_served.contains(&name.as_str())).collect();
        assert_eq!(served, ASSETS.iter().map(|asset| asset.name.to_owned()).collect());
    }

    #[test]
    fn the_page_and_its_files_are_small() {
        let bytes = INDEX.len() + ASSETS.iter().map(|asset| asset.bytes.len()).sum::<usize>();
        assert!(bytes < 200_000, "{bytes} bytes");
    }

    #[test]
    fn nothing_in_the_page_comes_from_elsewhere_or_is_inline() {
        for asset in ASSETS {
            let text = String::from_utf8_lossy(asset.bytes);
            if asset.name.starts_with("vendor/") {
                continue;
            }
            for forbidden in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "setAttribute('style",
            ] {
                assert!(!text.contains(forbidden), "{forbidden} in {}", asset.name);
            }
            let links = text.replace("http://www.w3.org/2000/svg", "").replace("http://HOST", "");
            assert!(!links.contains("https://"), "{}", asset.name);
        }
        for forbidden in ["<style", " style=", "onclick", "http://", "https://", "<script>"] {
            assert!(!INDEX.contains(forbidden), "{forbidden}");
        }
    }

    #[test]
    fn links_lead_up_from_deeper_paths() {
        assert!(index("/").contains("\"dashboard/app.js\""));
        assert!(index("/index.html").contains("\"dashboard/app.js\""));
        assert!(index("/a/b/c").contains("\"../../dashboard/app.js\""));
    }
}
