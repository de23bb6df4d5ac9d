//! What a request asks for, and the rules about which options go together.

use std::time::Duration;

use super::answer::Refusal;
use super::object::Selection;
use super::resource::Target;
use super::selector::Selector;

/// The options of a list or watch.
#[derive(Debug, Default)]
pub(super) struct Options {
    pub(super) watch: bool,
    pub(super) bookmarks: bool,
    pub(super) initial_events: bool,
    /// `None`: not given, or empty.
    pub(super) version: Option<u64>,
    pub(super) limit: usize,
    pub(super) continued: Option<String>,
    pub(super) timeout: Option<Duration>,
    pub(super) selection: Selection,
}

impl Options {
    /// Reads a query.
    pub(super) fn read(query: &str, target: &Target<'_>, streaming_lists: bool) -> Result<Self, Refusal> {
        let mut options = Self::default();
        options.selection.namespace = target.namespace.map(ToOwned::to_owned);
        let mut version_match = None;
        let mut send_initial = None;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let wrong = |reason: &str| Refusal::bad_request(format!("{name}={value:?}: {reason}"));
            let truth = || matches!(&*value, "true" | "1");
            let number = || value.parse::<u64>().map_err(|error| wrong(&error.to_string()));
            match &*name {
                "watch" => options.watch = truth(),
                "allowWatchBookmarks" => options.bookmarks = truth(),
                "sendInitialEvents" => send_initial = Some(truth()),
                "resourceVersion" if value.is_empty() => {}
                "resourceVersion" => options.version = Some(number()?),
                "resourceVersionMatch" => version_match = Some(value.into_owned()),
                "limit" => options.limit = usize::try_from(number()?).unwrap_or(0),
                "continue" => options.continued = (!value.is_empty()).then(|| value.into_owned()),
                "timeoutSeconds" => options.timeout = Some(Duration::from_secs(number()?)),
                "labelSelector" => {
                    options.selection.labels = Selector::read(&value).map_err(|reason| wrong(&reason))?;
                }
                "fieldSelector" => {
                    options.selection.fields = Selector::read(&value).map_err(|reason| wrong(&reason))?;
                }
                // `pretty` and other things that change nothing here.
                _ => {}
            }
        }
        let known = target.resource.selectable();
        let fields = &options.selection.fields;
        if let Some(field) =
            fields.names().find(|name| !name.starts_with("metadata.") && !known.contains(name))
        {
            return Err(Refusal::bad_request(format!("field label not supported: {field}")));
        }
        if options.continued.is_some() && options.version.is_some_and(|version| version != 0) {
            return Err(Refusal::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        options.check_initial(send_initial, version_match.as_deref(), streaming_lists)?;
        Ok(options)
    }

    fn check_initial(
        &mut self,
        send: Option<bool>,
        version_match: Option<&str>,
        streaming_lists: bool,
    ) -> Result<(), Refusal> {
        let invalid = |message: &str| {
            Err(Refusal::new(422, "Invalid", format!("ListOptions.meta.k8s.io \"\" is invalid: {message}")))
        };
        match (self.watch, send) {
            (false, Some(_)) => {
                invalid("sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list")
            }
            (true, Some(_)) if !streaming_lists => invalid(
                "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList \
                 feature gate is enabled",
            ),
            (true, Some(_)) if version_match != Some("NotOlderThan") => invalid(
                "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to \
                 NotOlderThan",
            ),
            (true, None) if version_match.is_some() => {
                invalid("resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch")
            }
            (true, Some(wanted)) => {
                self.initial_events = wanted;
                Ok(())
            }
            (false, None) if version_match.is_some() && self.version.is_none() => invalid(
                "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is \
                 provided",
            ),
            _ => Ok(()),
        }
    }
}
