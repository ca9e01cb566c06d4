//! nginx's access log of the native stack: the format `timing` in deploy/nginx/gateway/http.conf.

use std::{
    fs::File,
    io::{BufRead, BufReader, Seek, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};

/// A log is renamed when it is large; a step has a few renames at most.
const MAX_FILES: usize = 100;

/// A request that nginx has answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// Unix time of the end, in seconds.
    pub at_s: f64,
    pub status: u16,
    pub request_s: f64,
    pub is_recommendations: bool,
    /// Sent by our load generator, by its User-Agent.
    pub is_generator: bool,
    /// Of the only attempt; `None` if no replica was asked, or several were.
    pub upstream_s: Option<f64>,
    /// Attempts that had a connection to a replica.
    pub attempts: u64,
}

impl Line {
    /// `1700000000.123 200 0.090 /recommendations loadgen 0.085 | 0.000`: end, status, time, route, client, then the time and the connect
    /// time of each attempt, separated by commas. `None`: it is not like that.
    pub fn parse(line: &str) -> Option<Self> {
        let (request, connects) = line.trim_end().split_once(" | ")?;
        let mut fields = request.splitn(6, ' ');
        let (at_s, status) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let request_s = fields.next()?.parse().ok()?;
        let (route, client, upstream) = (fields.next()?, fields.next()?, fields.next()?);
        // A colon separates the attempts before and after an internal redirect.
        let attempts = connects.split([',', ':']).filter(|connect| connect.trim().parse::<f64>().is_ok()).count();
        Some(Self {
            at_s,
            status,
            request_s,
            is_recommendations: route == "/recommendations",
            is_generator: client == "loadgen",
            upstream_s: upstream.parse().ok(),
            attempts: attempts as u64,
        })
    }
}

/// The lines that are written from now on, also to the files that replace this one.
pub struct AccessLog {
    path: PathBuf,
    /// The oldest first: nginx may write to it for a moment after it was renamed.
    files: Vec<Followed>,
}

struct Followed {
    inode: u64,
    reader: BufReader<File>,
    /// The beginning of a line that nginx has not written to its end.
    partial: String,
}

impl AccessLog {
    /// # Errors
    /// The log cannot be opened.
    pub fn from_end_of(path: &Path) -> anyhow::Result<Self> {
        let mut file = Followed::open(path)?;
        file.reader.seek(SeekFrom::End(0))?;
        Ok(Self { path: path.to_owned(), files: vec![file] })
    }

    /// Calls `each` for every line that came since the last call.
    ///
    /// # Errors
    /// The log cannot be read, or was renamed too often.
    pub fn read(&mut self, mut each: impl FnMut(&Line)) -> anyhow::Result<()> {
        // Absent for a moment while it is renamed.
        let inode = std::fs::metadata(&self.path).map(|file| file.ino()).ok();
        if inode.is_some_and(|inode| self.files.iter().all(|file| file.inode != inode)) {
            ensure!(self.files.len() < MAX_FILES, "{} was renamed {MAX_FILES} times", self.path.display());
            self.files.push(Followed::open(&self.path)?);
        }
        for file in &mut self.files {
            file.read(&mut each).with_context(|| format!("cannot read {}", self.path.display()))?;
        }
        Ok(())
    }
}

impl Followed {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self { inode: file.metadata()?.ino(), reader: BufReader::new(file), partial: String::new() })
    }

    fn read(&mut self, each: &mut impl FnMut(&Line)) -> std::io::Result<()> {
        while self.reader.read_line(&mut self.partial)? > 0 {
            if !self.partial.ends_with('\n') {
                continue;
            }
            if let Some(line) = Line::parse(&self.partial) {
                each(&line);
            }
            self.partial.clear();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_line_names_client_route_and_attempts() {
        let line = Line::parse("150.123 200 0.090 /recommendations loadgen 0.085 | 0.000\n").unwrap();
        let expected = Line {
            at_s: 150.123,
            status: 200,
            request_s: 0.09,
            is_recommendations: true,
            is_generator: true,
            upstream_s: Some(0.085),
            attempts: 1,
        };
        assert_eq!(line, expected);
        // An absent replica, then one that answers.
        let retried = Line::parse("1.0 200 0.090 /recommendations other 0.000, 0.085 | -, 0.001").unwrap();
        assert_eq!((retried.attempts, retried.upstream_s, retried.is_generator), (1, None, false));
        let refused = Line::parse("1.0 502 0.000 other other 0.000, 0.000 | -, -").unwrap();
        assert_eq!((refused.attempts, refused.is_recommendations), (0, false));
        assert_eq!(Line::parse("1.0 404 0.000 other other - | -").unwrap().upstream_s, None);
        for bad in ["", "1.0 200 0.090 0.085", "x 200 0.0 other other - | -"] {
            assert_eq!(Line::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_new_lines_are_read_also_across_a_rename() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let line = |status: u16| format!("1.0 {status} 0.1 /recommendations loadgen 0.1 | 0.0\n");
        std::fs::write(&path, line(500)).unwrap();
        let mut old = File::options().append(true).open(&path).unwrap();
        let mut log = AccessLog::from_end_of(&path).unwrap();
        let mut seen = Vec::new();
        let (whole, half) = (line(200), line(201));
        let (begin, end) = half.split_at(20);
        write!(old, "{whole}{begin}").unwrap();
        log.read(|line| seen.push(line.status)).unwrap();
        write!(old, "{end}").unwrap();
        std::fs::rename(&path, folder.path().join("access.log.1")).unwrap();
        log.read(|line| seen.push(line.status)).unwrap();
        std::fs::write(&path, line(202)).unwrap();
        write!(old, "{}", line(203)).unwrap();
        log.read(|line| seen.push(line.status)).unwrap();
        assert_eq!(seen, [200, 201, 203, 202]);
        assert!(AccessLog::from_end_of(&folder.path().join("none")).is_err());
    }
}
