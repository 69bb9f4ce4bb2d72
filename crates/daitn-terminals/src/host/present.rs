//! A host that the holders of a model's weights were not told of, because it came later, shows them the center's order.

use crate::{
    limits::{PEER_DIAL_WITHIN, PRESENT_WITHIN},
    orders::Decided,
    shared::Shared,
};
use daitn_fabric::{DATA_ALPN, Session};
use daitn_messages::{
    ids::{ArtifactId, NodeId},
    limits::{FRAME_BYTES_MAX, SESSION_HEADER_BYTES_MAX},
    order::{Instruction, ServeOrder, WorkOrder},
    rejection::{Code, Rejection},
    session::{SessionReply, SessionRequest},
    signed::Signed,
};
use futures_util::future::join_all;

/// Shows the order to everybody who has the weights; the fetch after this says what came of it.
pub(super) async fn present(shared: &Shared, known: &Decided, serve: &ServeOrder) {
    let all = serve.holders.iter().filter(|peer| peer.node != shared.node);
    let shown = all.map(|peer| async move {
        let shown = tokio::time::timeout(PRESENT_WITHIN, show(shared, known, serve, peer.node)).await;
        if let Ok(Err(rejection)) = shown {
            tracing::info!(node = %peer.node, order = %known.order.id, "a holder does not take the order to serve: {rejection}");
        }
    });
    join_all(shown).await;
}

async fn show(shared: &Shared, known: &Decided, serve: &ServeOrder, holder: NodeId) -> Result<(), Rejection> {
    let connection = shared
        .endpoint
        .connection_to(holder, DATA_ALPN, PEER_DIAL_WITHIN)
        .await;
    let connection = connection.map_err(|error| Rejection::new(Code::Unreachable, error.to_string()))?;
    let request = SessionRequest::Present {
        weights: serve.weights.id,
    };
    let exchange = async {
        let mut session = connection.open(&request, PRESENT_WITHIN).await?;
        session.send_last(&known.signed).await?;
        session.recv::<SessionReply>(SESSION_HEADER_BYTES_MAX).await
    };
    match exchange.await.map_err(|error| error.rejection())? {
        SessionReply::Permitted => Ok(()),
        SessionReply::Refused(reason) => Err(reason),
        _ => Err(Rejection::malformed("reply", "not one to an order to serve")),
    }
}

/// Lets a host fetch weights that it shows the center's order to serve for.
///
/// # Errors
/// Where the order is none of the center's, or not for this host and these weights, or they are not held as a result.
pub(crate) async fn permit(
    shared: &Shared,
    remote: NodeId,
    weights: ArtifactId,
    session: &mut Session,
) -> Result<(), Rejection> {
    let proof: Signed<WorkOrder> = session
        .recv(FRAME_BYTES_MAX)
        .await
        .map_err(|error| error.rejection())?;
    let order = proof.open(shared.center)?;
    let is_for_it = order.node == remote && order.expires_at >= shared.clock.now();
    let serves = matches!(&order.instruction, Instruction::Serve(serve) if serve.weights.id == weights);
    if !is_for_it || !serves {
        let message = "the order is not for this host to serve these weights now";
        return Err(Rejection::new(Code::Unauthorised, message));
    }
    if !shared.holds.permit(remote, weights) {
        return Err(Rejection::not_found("artifact", weights));
    }
    tracing::info!(node = %remote, artifact = %weights, order = %order.id, "a host that came later may fetch a model");
    Ok(())
}
