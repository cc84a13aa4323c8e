//! Bodies of Kusto's REST API, of `/v1/sql`, of Azure's resources and of attachments, read as the
//! doors read them. The first byte chooses the door; of a resource, its path is the first line.

use slipstream_frontend::fuzzing;

pub(crate) fn run(data: &[u8]) {
    let Some((door, body)) = data.split_first() else {
        return;
    };
    match door % 4 {
        0 => {
            let _ = fuzzing::kusto_body(body);
        }
        1 => {
            let _ = fuzzing::sql_body(body);
        }
        2 => {
            let end = body.iter().position(|byte| *byte == b'\n');
            let (path, body) = body.split_at(end.unwrap_or(body.len()));
            let path = String::from_utf8_lossy(path);
            let _ = fuzzing::resource_body(&path, body);
        }
        _ => {
            let _ = fuzzing::sharing_body(body);
        }
    }
}
