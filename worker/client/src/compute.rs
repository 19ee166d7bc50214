//! Where computations run that would hold up the stream.

/// See the module.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compute {
    /// On the runtime's threads for such work.
    #[default]
    Pool,
    /// In place: for simulations, in which no thread may decide what comes first.
    Here,
}

impl Compute {
    /// Runs it.
    ///
    /// # Errors
    /// Where it panicked.
    pub async fn run<T: Send + 'static>(
        self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        match self {
            Self::Pool => tokio::task::spawn_blocking(work).await.map_err(|e| e.to_string()),
            Self::Here => Ok(work()),
        }
    }
}
