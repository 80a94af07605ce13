//! A compile as an action, with what may run it: this machine's compiler where agents of its architecture are, else a double, else nobody
//! but this machine, and why.

use std::sync::Arc;

use buildbee_proto::digest::Digest;
use buildbee_proto::outcome::ActionResult;

use super::Session;
use crate::compiler::request::CompilerFamily;
use crate::config::Compilers;
use crate::daemon::context::Context;
use crate::daemon::crates::action::MACROS;
use crate::daemon::crates::plan::CratePlan;
use crate::daemon::plan::Plan;
use crate::dispatch::farm::Farm;
use crate::dispatch::job::Job;
use crate::doubles::Pair;
use crate::doubles::known::Asked;
use crate::doubles::pair::{Dressed, Group};
use crate::doubles::rustc::known::RustAsked;
use crate::doubles::rustc::twins::TwinMaker;
use crate::doubles::rustc::{RustDouble, options};
use crate::inputs::discover::Inputs;
use crate::journal::Why;
use crate::toolchain::parts::Parts;

/// What is known before a result is looked for.
#[derive(Debug)]
pub(super) struct Ready {
    /// The action, of this machine's compiler, as such or as the double that it is for boards, or of its double.
    pub(super) job: Arc<Job>,
    /// The pair, where the action is the double's.
    pub(super) pair: Option<Arc<Pair>>,
    /// Why no agent may run it.
    pub(super) barred: Option<Why>,
}

impl Ready {
    /// Of `plan`, which reads `inputs`. Waits for a double to be proved, but not for long.
    pub(super) async fn of(session: &Session, plan: &Plan, inputs: Inputs) -> Result<Self, Why> {
        let (pair, barred) = match Box::pin(pair(session, plan)).await {
            Ok(pair) => (pair, None),
            Err(why) => (None, Some(why)),
        };
        let own = if pair.is_none() && barred.is_none() { own(session, plan).await } else { None };
        let job = match pair.as_ref().map(|pair| &pair.dressed).or(own.as_deref()) {
            Some(double) => Job::for_double(double, &plan.request, inputs, &plan.call.cwd),
            None => Job::new(&plan.compiler, &plan.request, inputs, &plan.call.cwd),
        };
        let job = job.map_err(|error| ("unusual-path".to_owned(), error.to_string()))?;
        Ok(Self { job: Arc::new(job), pair, barred })
    }

    /// The action of this machine's compiler: what a run here is kept as.
    pub(super) fn native(&self, plan: &Plan) -> Option<Arc<Job>> {
        if self.pair.is_none() {
            return Some(Arc::clone(&self.job));
        }
        Job::new(&plan.compiler, &plan.request, self.job.inputs.clone(), &plan.call.cwd).ok().map(Arc::new)
    }

    /// Why a result is not what a run here would have left, as far as a double is to blame.
    pub(super) fn objection<'a>(&self, result: &ActionResult, content: &dyn Fn(&Digest) -> &'a [u8]) -> Option<Why> {
        self.pair.as_ref()?.objection_to_result(result, content)
    }
}

/// The double that agents run for `plan`; `None`: they run the compiler itself, or there are none.
async fn pair(session: &Session, plan: &Plan) -> Result<Option<Arc<Pair>>, Why> {
    let context = &session.context;
    let here_only = plan.request.here_only.is_some();
    let Some(farm) = others(context, &plan.compiler.parts, here_only)? else { return Ok(None) };
    let Some((group, driver)) = Group::of(plan.request.language).zip(plan.call.named()) else {
        let text = format!("doubles are not proved for {}", plan.request.language.option_name());
        return Err(("double-option".to_owned(), text));
    };
    let (context, compiler) = (Arc::clone(context), Arc::clone(&plan.compiler));
    let looking = async move {
        let asked = Asked { context: &context, farm: &farm, compiler: &compiler, driver, group };
        Box::pin(context.doubles.of(asked)).await
    };
    let proved = in_time(session, looking).await?;
    match proved.pair.objection_to(&plan.request, proved.same_libraries) {
        Some(why) => Err(why),
        None => Ok(Some(proved.pair)),
    }
}

/// This machine's compiler as boards use it, where they do and where that makes the same of `plan`.
async fn own(session: &Session, plan: &Plan) -> Option<Arc<Dressed>> {
    if plan.compiler.family != CompilerFamily::Gcc || Dressed::looks_by_itself(&plan.request) {
        return None;
    }
    let host = &plan.compiler.parts.toolchain.host;
    let farm = session.context.farm.clone().filter(|farm| farm.lends_to(host) == Some(true))?;
    let (context, compiler) = (Arc::clone(&session.context), Arc::clone(&plan.compiler));
    let looking = async move {
        let own = Box::pin(context.doubles.own(&farm, &context.hashes, &compiler)).await;
        own.ok_or_else(|| ("no-double".to_owned(), String::new()))
    };
    in_time(session, looking).await.ok()
}

/// The double of rustc that agents run for `plan`; `None`: they run the compiler itself, or there are none.
pub(super) async fn double(session: &Session, plan: &CratePlan) -> Result<Option<Arc<RustDouble>>, Why> {
    let context = &session.context;
    let here_only = plan.request.here_only.is_some();
    let Some(farm) = others(context, &plan.compiler.parts, here_only)? else { return Ok(None) };
    if context.settings.compilers != Compilers::Equivalent {
        let text = "rustc on another kind of host may list macro expansions in another order\n\
                    hint: `compilers = \"equivalent\"` accepts metadata that differs in no more than that";
        return Err(("double-order".to_owned(), text.to_owned()));
    }
    if plan.request.links {
        let text = "it is linked, and what is linked for a board is linked on it";
        return Err(("double-link".to_owned(), text.to_owned()));
    }
    if let Some(argument) = options::objection(&plan.request) {
        return Err(("double-option".to_owned(), format!("the compilers' likeness says nothing of {argument}")));
    }
    let (context, compiler) = (Arc::clone(context), Arc::clone(&plan.compiler));
    let looking = async move {
        let asked = RustAsked { context: &context, farm: &farm, compiler: &compiler };
        Box::pin(context.doubles.of_rustc(asked)).await
    };
    in_time(session, looking).await.map(Some)
}

/// `plan`, whose double is proved, with twins of the macros that it uses, built by agents for themselves; or why those can't be had.
pub(super) async fn with_twins(session: &Session, plan: &Arc<CratePlan>) -> Result<Arc<CratePlan>, Why> {
    let (context, plan) = (Arc::clone(&session.context), Arc::clone(plan));
    let (Some(farm), Some(double)) = (context.farm.clone(), plan.double.clone()) else {
        return Err((MACROS.to_owned(), "it uses macros, and there is no farm".to_owned()));
    };
    let looking = async move {
        let asked = RustAsked { context: &context, farm: &farm, compiler: &plan.compiler };
        let linking = Box::pin(context.doubles.for_macros(asked, &double)).await?;
        let twins = Box::pin(TwinMaker { asked, linking: &linking }.of_macros(&plan)).await?;
        Ok(Arc::new(plan.with_twins(twins)))
    };
    in_time(session, looking).await
}

/// The farm, if it has agents and none of them runs programs of `own`'s kind; why doubles are not asked for there.
fn others(context: &Context, own: &Parts, here_only: bool) -> Result<Option<Farm>, Why> {
    let farm = context.farm.as_ref().filter(|farm| !here_only && farm.lends_to(&own.toolchain.host) == Some(false));
    if farm.is_some() && context.settings.compilers == Compilers::Exact {
        let text = "no agent runs this machine's programs, and `compilers` is \"exact\"";
        return Err(("other-host".to_owned(), text.to_owned()));
    }
    Ok(farm.cloned())
}

/// What comes of a look for a double, which is not waited for long. It goes on when nobody waits any more: the next compile needs it too.
async fn in_time<T: Send + 'static>(
    session: &Session,
    looking: impl Future<Output = Result<T, Why>> + Send + 'static,
) -> Result<T, Why> {
    match tokio::time::timeout(session.patience(), tokio::spawn(looking)).await {
        Ok(Ok(found)) => found,
        Ok(Err(_)) => Err(("double-trouble".to_owned(), "the look for a double was cut off".to_owned())),
        Err(_) => Err(("double-late".to_owned(), "a double is still being looked for and proved".to_owned())),
    }
}
