use super::*;

fn kinds(text: &str) -> Vec<Kind> {
    let tokens = tokens(text).expect("readable");
    tokens.into_iter().map(|token| token.kind).collect()
}

fn text(text: &str) -> Kind {
    Kind::Text(text.to_owned())
}

fn word(text: &str) -> Kind {
    Kind::Word(text.to_owned())
}

#[test]
fn strings_come_in_all_of_kustos_forms() {
    for (written, meant) in [
        (r#"'a\'b\\'"#, r"a'b\"),
        (r#""a'b""#, "a'b"),
        (r#"@'c:\d''e'"#, r"c:\d'e"),
        ("```a\n'b'```", "a\n'b'"),
        ("h'secret'", "secret"),
        (r#"H@"s\e""#, r"s\e"),
        ("''", ""),
    ] {
        assert_eq!(kinds(written), [text(meant)], "{written}");
    }
    assert!(tokens("h'x' 'y'").is_ok_and(|t| t[0].is_secret && !t[1].is_secret));
}

#[test]
fn words_literals_and_moments_are_told_apart() {
    assert_eq!(
        kinds(".create-or-alter ['my table'] h1"),
        [
            Kind::Sign('.'),
            word("create-or-alter"),
            Kind::Name("my table".into()),
            word("h1")
        ]
    );
    let literal = |text: &str| Kind::Literal(text.to_owned());
    assert_eq!(
        kinds("7d 1.5h 3.00:00:00 0af1-9b"),
        [
            literal("7d"),
            literal("1.5h"),
            literal("3.00:00:00"),
            literal("0af1-9b")
        ]
    );
    assert_eq!(
        kinds("datetime(2026-01-31 10:00) .. datetime( x )"),
        [
            Kind::Call("datetime".into(), "2026-01-31 10:00".into()),
            Kind::Range,
            Kind::Call("datetime".into(), "x".into())
        ]
    );
    assert_eq!(
        kinds("a:datetime, // a comment\nb"),
        [
            word("a"),
            Kind::Sign(':'),
            word("datetime"),
            Kind::Sign(','),
            word("b")
        ]
    );
}

#[test]
fn a_body_ends_with_the_brace_that_closes_it() {
    let sql = "SELECT '}' AS a, {x} -- }\n FROM t";
    assert_eq!(
        kinds(&format!("{{ {sql} }} x")),
        [Kind::Body(sql.to_owned()), word("x")]
    );
    let sql = "SELECT 1 /* don't } */ AS a";
    assert_eq!(kinds(&format!("{{{sql}}}")), [Kind::Body(sql.to_owned())]);
    for open in ["{ SELECT 1", "{ '}", &"{".repeat(1000)] {
        assert!(tokens(open).is_err(), "{open}");
    }
}

#[test]
fn sql_is_not_read_as_commands_are() {
    for sql in [
        "SELECT a ~ '^x' -- don't",
        "with x AS (SELECT ARRAY[1]) SELECT `a` FROM x",
    ] {
        let begin = word(sql.split(' ').next().expect("a word"));
        let command = kinds(&format!(".drop extents <| {sql}"));
        assert_eq!(command.last(), Some(&begin), "{sql}");
        assert_eq!(kinds(sql), [begin], "in braces of its own");
    }
    // Elsewhere it is a word like any other.
    assert!(tokens(".create table select (a ~").is_err());
}

#[test]
fn what_does_not_end_is_named_where_it_begins() {
    for (wrong, at) in [(".show 'x", 6), ("a [b]", 2), ("@'x''", 0), ("'a\nb'", 0)] {
        let (span, _) = tokens(wrong).expect_err(wrong);
        assert_eq!(span.start, at, "{wrong}");
    }
}
