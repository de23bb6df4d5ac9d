//! Every behaviour of services holds with the socket fast path and without.

/// Makes two tests of each function: `<name>::on_the_fast_path` and `<name>::per_packet`. A function takes whether the
/// fast path is on.
macro_rules! on_both_paths {
    ($($name:ident),+ $(,)?) => {
        $(
            mod $name {
                #[test]
                fn on_the_fast_path() -> sluice_tests::Result<()> {
                    super::$name(true)
                }

                #[test]
                fn per_packet() -> sluice_tests::Result<()> {
                    super::$name(false)
                }
            }
        )+
    };
}

pub(crate) use on_both_paths;
