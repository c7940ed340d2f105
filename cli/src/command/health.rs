//! The health flags of `run` and `create`.

use clap::Args;
use docker_api::container::HealthConfig;

use super::flags;
use crate::error::CliError;

#[derive(Debug, Args)]
pub(crate) struct Health {
    /// Command to run to check health
    #[arg(long = "health-cmd", default_value = "", hide_default_value = true)]
    command: String,
    /// Time between running the check (ms|s|m|h) (default 0s)
    #[arg(long = "health-interval", value_parser = flags::duration)]
    interval: Option<i64>,
    /// Consecutive failures needed to report unhealthy
    #[arg(long = "health-retries", value_parser = flags::integer)]
    retries: Option<i64>,
    /// Time between running the check during the start period (ms|s|m|h) (default 0s)
    #[arg(long = "health-start-interval", value_parser = flags::duration)]
    start_interval: Option<i64>,
    /// Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)
    #[arg(long = "health-start-period", value_parser = flags::duration)]
    start_period: Option<i64>,
    /// Maximum time to allow one check to run (ms|s|m|h) (default 0s)
    #[arg(long = "health-timeout", value_parser = flags::duration)]
    timeout: Option<i64>,
    /// Disable any container-specified HEALTHCHECK
    #[arg(long = "no-healthcheck")]
    none: bool,
}

impl Health {
    /// The first engines that know it speak 1.44.
    pub(super) fn has_start_interval(&self) -> bool {
        self.start_interval.is_some()
    }

    pub(super) fn config(&self) -> Result<Option<HealthConfig>, CliError> {
        let numbers = [
            ("interval", self.interval),
            ("timeout", self.timeout),
            ("retries", self.retries),
            ("start-period", self.start_period),
            ("start-interval", self.start_interval),
        ];
        let given = |number: &Option<i64>| number.is_some_and(|number| number != 0);
        let any = !self.command.is_empty() || numbers.iter().any(|(_, number)| given(number));
        if self.none {
            if any {
                return Err(CliError::Usage(
                    "--no-healthcheck conflicts with --health-* options".into(),
                ));
            }
            let test = Some(vec!["NONE".to_owned()]);
            return Ok(Some(HealthConfig { test, ..HealthConfig::default() }));
        }
        if let Some((name, _)) =
            numbers.iter().find(|(_, number)| number.is_some_and(|number| number < 0))
        {
            return Err(CliError::Usage(format!("--health-{name} cannot be negative")));
        }
        let command = vec!["CMD-SHELL".to_owned(), self.command.clone()];
        Ok(any.then(|| HealthConfig {
            test: (!self.command.is_empty()).then_some(command),
            interval: self.interval.filter(|number| *number != 0),
            timeout: self.timeout.filter(|number| *number != 0),
            start_period: self.start_period.filter(|number| *number != 0),
            start_interval: self.start_interval.filter(|number| *number != 0),
            retries: self.retries.filter(|number| *number != 0),
        }))
    }
}
