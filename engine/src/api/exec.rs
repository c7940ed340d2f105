//! `/exec`.

use std::sync::Arc;

use crate::api::call::Call;
use crate::api::error::ApiError;
use crate::api::reply::Reply;
use crate::app::App;

pub(crate) async fn route(_app: &Arc<App>, _call: Call) -> Result<Reply, ApiError> {
    Err(ApiError::page_not_found())
}
