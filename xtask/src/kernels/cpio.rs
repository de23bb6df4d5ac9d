//! An archive in the format "newc" of cpio, which is what a kernel unpacks into its first file system.

/// An archive under way.
#[derive(Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    files: u32,
}

/// File types and permissions, as `stat` has them.
const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

impl Archive {
    /// Adds a folder. Its parents must have been added before.
    pub(super) fn folder(&mut self, name: &str) {
        self.entry(name, FOLDER, &[]);
    }

    /// Adds a file that can be run.
    pub(super) fn program(&mut self, name: &str, content: &[u8]) {
        self.entry(name, PROGRAM, content);
    }

    /// The archive, ended.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.files += 1;
        // A name and a content have 32 bits for their lengths; what is put in here has some megabytes.
        let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let mut header = "070701".to_owned();
        // Inode, mode, owner, group, links, time, size, device (2), device number (2), length of name, checksum.
        let size = length(content.len());
        let fields = [self.files, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, length(name.len() + 1), 0];
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.bytes.extend(header.bytes().chain(name.bytes()).chain([0]));
        self.align();
        self.bytes.extend(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_what_cpio_writes() {
        let mut archive = Archive::default();
        archive.folder("dev");
        archive.program("init", b"hello");
        let bytes = archive.finish();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.starts_with("07070100000001000041ed"), "{text}");
        // A header of 110 bytes and a name of 4 with its zero, to the next multiple of 4.
        assert_eq!((&text[110..116], &text[116..120]), ("dev\0\0\0", "0707"));
        let init = text.find("init\0").unwrap();
        assert_eq!(&text[init + 6..init + 11], "hello", "{text:?}");
        assert!(text.contains("TRAILER!!!\0"));
        assert_eq!(bytes.len() % 4, 0);
    }
}
