//! The query parameters of an Engine.IO request that mean something here; all others are the application's.
//!
//! Invariant: the first occurrence of a name counts; our values are plain ASCII, so nothing is decoded.

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query<'a> {
    pub(super) transport: Option<&'a str>,
    pub(super) sid: Option<&'a str>,
    pub(super) eio: Option<&'a str>,
}

impl<'a> Query<'a> {
    /// Picks the parameters out of a query string.
    pub(super) fn parse(text: &'a str) -> Query<'a> {
        let mut query = Query::default();
        for pair in text.split('&') {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let field = match name {
                "transport" => &mut query.transport,
                "sid" => &mut query.sid,
                "EIO" => &mut query.eio,
                _ => continue,
            };
            field.get_or_insert(value);
        }
        query
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_are_found_among_others() {
        let query = Query::parse("a=1&EIO=4&transport=polling&t=xyz&transport=websocket&sid");
        assert_eq!(query, Query { transport: Some("polling"), sid: Some(""), eio: Some("4") });
        assert_eq!(Query::parse(""), Query::default());
    }
}
