//! What a broker says no to.

use lapin::{Channel, ErrorKind};
use shared::{Connection, Error, Result};

/// The broker's answer to something that it does not allow.
///
/// A refusal closes the channel on which it was asked, and one from 500 on the whole connection.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{code} {text}")]
pub struct Refusal {
    /// AMQP's reply code: 403, 404, 405, 406, 540, …
    pub code: u16,
    /// The code's name and the broker's reason, such as `NOT_FOUND - no queue 'hello' in vhost '/'`.
    pub text: String,
}

/// Does something that the broker may refuse, on a channel of its own, which a refusal costs.
///
/// The experiment has to wait for the error that it provokes. A channel that is dropped with an error on its
/// way to it takes the whole connection down.
///
/// # Errors
/// Any error of the experiment that is not a refusal.
pub async fn attempt<T>(
    connection: &Connection,
    mut experiment: impl AsyncFnMut(&Channel) -> Result<T>,
) -> Result<Result<T, Refusal>> {
    connection
        .session(async |session| match experiment(&session.channel).await {
            Ok(value) => Ok(Ok(value)),
            Err(error) => refusal(error).map(Err),
        })
        .await
}

/// As [`attempt`], for something that every broker refuses.
///
/// # Errors
/// Any error that is not a refusal, and one of its own if the broker allows it after all.
pub async fn refused<T>(
    connection: &Connection,
    experiment: impl AsyncFnMut(&Channel) -> Result<T>,
) -> Result<Refusal> {
    match attempt(connection, experiment).await? {
        Err(refusal) => Ok(refusal),
        Ok(_) => Err(Error::own("the broker allowed what it was expected to refuse")),
    }
}

/// The refusal in an error; the error itself if there is none in it.
fn refusal(error: Error) -> Result<Refusal> {
    if let Error::Refused { cause, .. } = &error
        && let ErrorKind::ProtocolError(refusal) = cause.kind()
    {
        return Ok(Refusal { code: refusal.get_id(), text: refusal.get_message().to_string() });
    }
    Err(error)
}
