//! The planning session: names to schemas, SQL to an optimised logical plan.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::SchemaRef;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList as _, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
    SchemaProvider,
};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, TableReference};
use datafusion::datasource::empty::EmptyTable;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::optimizer::Optimizer;
use datafusion::optimizer::common_subexpr_eliminate::CommonSubexprEliminate;
use datafusion::optimizer::optimize_projections::OptimizeProjections;
use datafusion::optimizer::simplify_expressions::SimplifyExpressions;
use datafusion::prelude::SessionConfig;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;
use futures::executor::block_on;

use super::faults::{Context, faults_of};
use super::{SqlFault, Tables};
use crate::dialect::parse;
use crate::functions::{Bounds, TUMBLE, install, window_functions};

const CATALOG: &str = "cornjacket";
/// The schema that names without a dot belong to: the streams.
const STREAMS: &str = "streams";

/// The most that functions may give.
const BOUNDS: Bounds = Bounds { value: 1 << 20, batch: 64 << 20 };

/// A `DataFusion` session that knows the pipeline's tables by their schemas only.
pub(super) struct Session {
    pub(super) state: SessionState,
    pub(super) tables: Tables,
}

/// Functions and options, the same for every pipeline: made once, since there are hundreds of functions.
static BASE: LazyLock<SessionState> = LazyLock::new(|| {
    let mut config = SessionConfig::new().with_default_catalog_and_schema(CATALOG, STREAMS);
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    options.sql_parser.map_string_types_to_utf8view = false;
    let mut state = SessionStateBuilder::new().with_config(config).with_default_features().build();
    for function in window_functions() {
        // Registering over the defaults cannot fail: the registry is in memory.
        let _ = datafusion::execution::FunctionRegistry::register_udf(&mut state, function);
    }
    let _ = install(&mut state, BOUNDS);
    state
});

/// The session before it knows any tables.
pub(crate) fn session_state() -> &'static SessionState {
    &BASE
}

impl Session {
    pub(super) fn new(tables: &Tables) -> Self {
        let mut state = BASE.clone();
        let catalogs = MemoryCatalogProviderList::new();
        catalogs.register_catalog(CATALOG.into(), Arc::new(catalog(tables)));
        state.register_catalog_list(Arc::new(catalogs));
        Self { state, tables: tables.clone() }
    }

    /// Parses, resolves, checks and simplifies.
    pub(super) fn plan(&self, sql: &str) -> Result<LogicalPlan, Vec<SqlFault>> {
        let context = Context { sql, tables: &self.tables };
        let statement = self.parse(sql)?;
        let plan = block_on(self.state.statement_to_plan(statement)).map_err(|error| faults_of(&error, &context))?;
        refuse_unrepeatable(&plan, &context).map_err(|fault| vec![fault])?;
        self.optimize(plan).map_err(|error| faults_of(&error, &context))
    }

    fn parse(&self, sql: &str) -> Result<Statement, Vec<SqlFault>> {
        let context = Context { sql, tables: &self.tables };
        let statement = parse(&self.state, sql).map_err(|error| faults_of(&error, &context))?;
        match &statement {
            Statement::Statement(inner) if matches!(inner.as_ref(), SqlStatement::Query(_)) => Ok(statement),
            _ => Err(vec![
                SqlFault::new("CJ202", "a stream is one SELECT statement, and this is another")
                    .with_hint("write SELECT … FROM …; where the rows go is said under `sinks:`")
                    .about(first_word(sql)),
            ]),
        }
    }

    /// Only rules that keep the plan's shape: they fold constants, share sub-expressions and drop unused columns.
    fn optimize(&self, plan: LogicalPlan) -> Result<LogicalPlan, DataFusionError> {
        let plan = self.state.analyzer().execute_and_check(plan, self.state.config_options(), |_, _| {})?;
        let rules = Optimizer::with_rules(vec![
            Arc::new(SimplifyExpressions::new()),
            Arc::new(CommonSubexprEliminate::new()),
            Arc::new(OptimizeProjections::new()),
        ]);
        rules.optimize(plan, &self.state, |_, _| {})
    }

    pub(super) fn tables_of(&self, sql: &str) -> Vec<String> {
        let Ok(statement) = self.parse(sql) else { return Vec::new() };
        let references = self.state.resolve_table_references(&statement).unwrap_or_default();
        references.iter().map(table_name).collect()
    }
}

fn first_word(sql: &str) -> Option<std::ops::Range<usize>> {
    let start = sql.find(|c: char| c.is_alphabetic())?;
    let length = sql[start..].find(|c: char| !c.is_alphanumeric()).unwrap_or(sql.len() - start);
    Some(start..start + length)
}

/// The name that a table has in [`Tables`].
pub(super) fn table_name(reference: &TableReference) -> String {
    match reference.schema() {
        Some(schema) if schema != STREAMS => format!("{schema}.{}", reference.table()),
        _ => reference.table().to_string(),
    }
}

fn catalog(tables: &Tables) -> MemoryCatalogProvider {
    let mut schemas: BTreeMap<&str, Vec<(&str, &SchemaRef)>> = BTreeMap::from([(STREAMS, Vec::new())]);
    for (name, columns) in &tables.schemas {
        let (schema, table) = name.split_once('.').unwrap_or((STREAMS, name));
        schemas.entry(schema).or_default().push((table, columns));
    }
    let catalog = MemoryCatalogProvider::new();
    for (name, tables) in schemas {
        let schema = MemorySchemaProvider::new();
        for (table, columns) in tables {
            // Fails only for a table registered twice, and names are unique.
            let _ = schema.register_table(table.into(), Arc::new(EmptyTable::new(Arc::clone(columns))));
        }
        let _ = catalog.register_schema(name, Arc::new(schema));
    }
    catalog
}

/// A replay must give the same rows as the first run, so a stream may not ask for the time or for randomness.
fn refuse_unrepeatable(plan: &LogicalPlan, context: &Context<'_>) -> Result<(), SqlFault> {
    let mut found = None;
    let _ = plan.apply_with_subqueries(|node| {
        let _ = node.apply_expressions(|expression| {
            expression.apply(|part| {
                if let Expr::ScalarFunction(call) = part
                    && call.func.signature().volatility != Volatility::Immutable
                    && call.func.name() != TUMBLE
                {
                    found = Some(call.func.name().to_string());
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        });
        Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    match found {
        None => Ok(()),
        Some(name) => Err(SqlFault::new(
            "CJ205",
            format!("`{name}` gives another answer at every call, so a replay would differ"),
        )
        .with_hint("use event_time or ingested_at, which are stored with the event")
        .about(context.find_any(&[
            name.as_str(),
            "current_timestamp",
            "current_date",
            "current_time",
            "today",
        ]))),
    }
}
