//! Tests of the metrics' text: what a scraper and a person with a dashboard rely on.
