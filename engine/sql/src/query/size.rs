//! How large a statement may be beyond its length.
//!
//! Planning is neither interrupted by the time limit nor counted by the memory limit, so what makes it slow or large is
//! refused before: long chains of operators, and queries that name each other until a short text is a huge plan.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{ObjectName, Query, Select, Statement, Visit, Visitor};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::QueryError;
use super::faults::error_of;

/// The most operators in a statement. Planning a chain of them takes time that grows with its square, and nothing
/// interrupts planning.
const MOST_OPERATORS: usize = 1_000;
/// The most tables, joins, projections and the like in a plan. A short text can name a step twice in the next step, thirty
/// steps long, and the plan is a tree, not a graph: without a bound it would be optimised until memory is gone.
const MOST_STEPS: usize = 500;

/// Refuses SQL with too many operators.
pub(super) fn check_operators(sql: &str) -> Result<(), QueryError> {
    // What cannot be read as tokens is the parser's to explain.
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize().unwrap_or_default();
    let operators = tokens.iter().filter(|token| is_operator(token)).count();
    if operators <= MOST_OPERATORS {
        return Ok(());
    }
    Err(QueryError::Invalid {
        message: format!("the SQL has {operators} operators, and {MOST_OPERATORS} are allowed"),
        hint: Some("write a list of values with IN".into()),
    })
}

fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(word.keyword, Keyword::AND | Keyword::OR | Keyword::XOR | Keyword::LIKE),
        Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::HexStringLiteral(_)
        | Token::Placeholder(_)
        | Token::Whitespace(_)
        | Token::Comma
        | Token::Period
        | Token::LParen
        | Token::RParen
        | Token::SemiColon
        | Token::EOF => false,
        _ => true,
    }
}

/// Refuses a plan with too many steps, without walking all of it.
pub(super) fn check_steps(plan: &LogicalPlan) -> Result<(), QueryError> {
    let mut steps = 0;
    let counted = plan.apply_with_subqueries(|_| {
        steps += 1;
        Ok(if steps > MOST_STEPS { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    counted.map_err(|error| error_of(&error, None))?;
    if steps > MOST_STEPS { Err(too_many_steps()) } else { Ok(()) }
}

fn too_many_steps() -> QueryError {
    QueryError::Invalid {
        message: format!("the SQL has more than {MOST_STEPS} tables, joins and subqueries"),
        hint: Some("each use of a WITH query counts anew; write VALUES instead of many SELECTs".into()),
    }
}

/// Refuses a statement that names its WITH queries so often that its plan would have too many steps.
pub(super) fn check_expansion(statement: &Statement) -> Result<(), QueryError> {
    match statement.visit(&mut Expansion::default()) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(too_many_steps()),
    }
}

/// Counts tables and subqueries as if every use of a WITH query were written out. Scopes are not told apart: where two
/// WITH queries have one name, the larger counts.
#[derive(Default)]
struct Expansion {
    /// Steps of the queries around the current place, the innermost last.
    open: Vec<usize>,
    /// Names of WITH queries by the address of their syntax tree, which stays where it is during the visit.
    names: HashMap<usize, String>,
    /// Steps of each WITH query that is complete.
    steps: HashMap<String, usize>,
}

impl Expansion {
    fn add(&mut self, steps: usize) -> ControlFlow<()> {
        let Some(open) = self.open.last_mut() else { return ControlFlow::Continue(()) };
        *open = open.saturating_add(steps);
        if *open > MOST_STEPS { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

fn address(query: &Query) -> usize {
    std::ptr::from_ref(query).addr()
}

impl Visitor for Expansion {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.open.push(0);
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.names.insert(address(&cte.query), cte.alias.name.value.to_lowercase());
        }
        self.add(1)
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let steps = self.open.pop().unwrap_or_default();
        match self.names.remove(&address(query)) {
            // It counts where it is used.
            Some(name) => {
                let most = self.steps.entry(name).or_default();
                *most = steps.max(*most);
                ControlFlow::Continue(())
            }
            None => self.add(steps),
        }
    }

    fn pre_visit_select(&mut self, _: &Select) -> ControlFlow<()> {
        self.add(1)
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        let name = relation.0.last().map(|part| part.to_string().trim_matches('"').to_lowercase());
        let steps = name.and_then(|name| self.steps.get(&name).copied()).unwrap_or(0);
        self.add(steps.saturating_add(1))
    }
}
