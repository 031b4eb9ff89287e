#pragma once
double scale(double value);
double shift(double value);
double total(double value);
