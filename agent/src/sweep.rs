//! How often connections that are over are looked for, and when the table of them is too small.

use std::time::Duration;

/// Between two rounds through the table.
pub const PAUSE: Duration = Duration::from_secs(5);

/// Between two parts of a round: long enough that a large table takes no more than a fifth of the loop's time.
pub fn rest(worked: Duration) -> Duration {
    (worked * 4).max(Duration::from_millis(20))
}

/// Whether the table of connections is full. It is one that forgets the oldest to make room, which no error tells.
#[derive(Debug, Default)]
pub struct Crowd {
    told: bool,
}

impl Crowd {
    /// What is to be told, once, of a table with so many entries. Full means nineteen parts of twenty: some of the room
    /// lies idle with each CPU. It is over at fifteen.
    pub fn judge(&mut self, entries: usize, capacity: usize) -> Option<String> {
        let (full, over) = (entries * 20 >= capacity * 19, entries * 20 < capacity * 15);
        if full && !self.told && capacity > 0 {
            self.told = true;
            return Some(format!(
                "the table of connections is full ({entries} of {capacity} entries): new connections push out the ones \
                 that were quiet for longest; raise flowEntries, which takes effect once the pinned table is removed"
            ));
        }
        self.told &= !over;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_is_told_once_and_again_after_it_had_room() {
        let mut crowd = Crowd::default();
        let told = [0, 94, 95, 100, 80, 96, 74, 95].map(|entries| crowd.judge(entries, 100).is_some());
        assert_eq!(told, [false, false, true, false, false, false, false, true]);
        assert_eq!(Crowd::default().judge(0, 0), None);
    }
}
